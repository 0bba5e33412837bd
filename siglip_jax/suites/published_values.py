"""Published values, each with where it is from and how it was measured.

`published.tsv` beside this file holds what open_clip's authors measured, in percent; the values
of the papers are those of `siglip_jax.checkpoints`.
"""

import csv
import dataclasses
import functools
from pathlib import Path

from siglip_jax.checkpoints import find
from siglip_jax.suites.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where values are from.

    Attributes:
      name: short, for a table.
      title: in words.
      where: a document, at a commit or as a number of arXiv.
      profile: whose preprocessing they were measured with, as `siglip_jax.load` calls it.
      templates: of `siglip_jax.evaluation.TEMPLATES`; None for those that lie with the data.
      crop: share of the side of an image that is kept, of images of classes.
    """

    name: str
    title: str
    where: str
    profile: str
    templates: str | None
    crop: float = 1.0


_OPEN_CLIP = "github.com/mlfoundations/open_clip at 89fb801, docs/openclip_"
# fmt: off
ORIGINS: dict[str, Origin] = {
    "siglip2": Origin(name="SigLIP 2 paper", title="SigLIP 2, table 1", where="arXiv 2502.14786",
                      profile="big_vision", templates="clip_paper", crop=0.875),
    "siglip": Origin(name="SigLIP paper", title="SigLIP, table 2", where="arXiv 2303.15343",
                     profile="big_vision", templates="clip_paper", crop=0.875),
    "readme": Origin(name="README_siglip2", title="big_vision's README of SigLIP 2",
                     where="github.com/google-research/big_vision at 0127fb6, "
                     "configs/proj/image_text/README_siglip2.md",
                     profile="big_vision", templates="clip_paper", crop=0.875),
    "open_clip_38": Origin(name="open_clip", title="open_clip on DataComp's tasks",
                           where=f"{_OPEN_CLIP}results.csv", profile="open_clip", templates=None),
    "open_clip_retrieval": Origin(name="open_clip", title="open_clip on Flickr30k and COCO",
                                  where=f"{_OPEN_CLIP}retrieval_results.csv",
                                  profile="open_clip", templates=None),
    "open_clip_multilingual": Origin(name="open_clip", title="open_clip in many languages",
                                     where=f"{_OPEN_CLIP}multilingual_retrieval_results.csv",
                                     profile="open_clip", templates=None),
}
# fmt: on


@dataclasses.dataclass(frozen=True)
class Published:
    """A value in percent, of a metric of a task."""

    metric: str
    value: float
    origin: Origin

    def differs(
        self, task: Task, profile: str, templates: str | None, crop: float = 1.0
    ) -> list[str]:
        """What was otherwise when it was measured; nothing where ours is to be compared with it.

        Args:
          profile: of the model.
          templates: name of ours, None for those of the data; no matter for captions.
          crop: of images of classes.
        """
        found = ["preprocessing"] if profile != self.origin.profile else []
        if task.kind == "zeroshot":
            found += ["crop"] if not found and crop != self.origin.crop else []
            found += ["templates"] if templates != self.origin.templates else []
            ours = self.origin.profile == "open_clip" or task.classes_of_paper
            found += [] if ours else ["classes"]
        # CLIP_benchmark takes the first caption of a language, big_vision all of them.
        if task.kind == "multilingual" and self.origin.profile == "open_clip":
            found += ["captions"]
        return found


def published(model: str, task: Task) -> list[Published]:
    """What is published of a model for a task, the papers first.

    Args:
      model: by any name; of one that is not released nothing is.

    >>> from siglip_jax.suites.catalogue import TASKS
    >>> [(p.value, p.origin.name) for p in published("siglip_b16_224", TASKS["imagenet1k"])]
    [(76.2, 'SigLIP 2 paper'), (76.04, 'open_clip')]
    """
    name = released(model)
    if name is None:
        return []
    checkpoint = find(name)
    origin = ORIGINS["siglip2"]
    if name == "siglip_b16_256_i18n":
        origin = ORIGINS["siglip"]
    if name.endswith("_naflex"):
        origin = ORIGINS["readme"]
    values = ((metric, getattr(checkpoint.accuracy, field)) for metric, field in task.paper)
    found = [Published(metric, value, origin) for metric, value in values if value is not None]
    return [*found, *_measured().get((name, task.name), ())]


def published_average(model: str, average: str) -> Published | None:
    """The published mean of a whole suite, if there is one."""
    found = _measured().get((released(model) or "", average), ())
    return found[0] if found else None


def published_languages(model: str, task: Task) -> dict[tuple[str, str], Published]:
    """By language and metric."""
    name, begin = released(model), f"{task.name}/"
    return {
        (key[1].removeprefix(begin), each.metric): each
        for key, values in _measured().items()
        if key[0] == name and key[1].startswith(begin)
        for each in values
    }


def released(model: str) -> str | None:
    """Our name of a released checkpoint; None for any other model.

    >>> released("timm/ViT-B-16-SigLIP"), released("siglip_emoji")
    ('siglip_b16_224', None)
    """
    try:
        return find(model).name
    except ValueError:
        return None


@functools.cache
def _measured() -> dict[tuple[str, str], tuple[Published, ...]]:
    """By model and task."""
    found: dict[tuple[str, str], list[Published]] = {}
    with Path(__file__).with_name("published.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            value = Published(row["metric"], float(row["value"]), ORIGINS[row["source"]])
            found.setdefault((row["model"], row["task"]), []).append(value)
    return {key: tuple(values) for key, values in found.items()}
