"""What came of a task: one file of JSON, whole or not at all, in CLIP_benchmark's keys."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from siglip_jax.jobs.durable import write_json
from siglip_jax.suites.published_values import released

FOLDER = "metrics"
_OURS = ("languages", "templates", "images", "errors", "unlabelled", "about")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
    """A task that was measured.

    Attributes:
      task: its name.
      model, profile: what it was measured with.
      kind: of the task, as CLIP_benchmark calls it.
      metrics: shares between 0 and 1.
      languages: metrics of each, where there are several; `metrics` is their mean.
      templates: name of a list of ours, None for those of the data.
      images, errors: how many there are, and how many of them cannot be read.
      unlabelled: images left out for want of a class or a caption.
      about: more that is worth keeping: counts of classes and texts.
    """

    task: str
    model: str
    profile: str
    kind: str
    metrics: dict[str, float]
    languages: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    templates: str | None = None
    images: int = 0
    errors: int = 0
    unlabelled: int = 0
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Plain JSON types: CLIP_benchmark's six keys first, then ours."""
        languages = list(self.languages)
        plain = {
            "dataset": self.task,
            "model": self.model,
            "pretrained": "webli" if released(self.model) else "",
            "task": f"zeroshot_{self.kind}",
            "metrics": self.metrics,
            "language": languages[0] if len(languages) == 1 else "all" if languages else "en",
        }
        ours = dataclasses.asdict(self)
        return plain | {name: ours[name] for name in ("profile", *_OURS)}


def write_result(folder: Path, result: TaskResult) -> None:
    """Writes it, durably."""
    (folder / FOLDER).mkdir(exist_ok=True)
    write_json(folder / FOLDER / f"{result.task}.json", result.describe())


def read_result(folder: Path, task: str) -> TaskResult | None:
    """What is in the folder of a suite of a task; None if it is not measured yet.

    Raises:
      ValueError: if the file is damaged.
    """
    path = folder / FOLDER / f"{task}.json"
    try:
        plain = json.loads(path.read_text("utf-8"))
        kind = plain["task"].removeprefix("zeroshot_")
        names = ("profile", "metrics", *_OURS)
        return TaskResult(
            task=plain["dataset"],
            model=plain["model"],
            kind=kind,
            **{name: plain[name] for name in names},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged; remove it to have it measured again") from error
