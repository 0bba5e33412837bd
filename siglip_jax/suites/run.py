"""A suite, run: images by resumable jobs, a file of metrics a task, a table of all.

out/suite.json             which suite, data, model and templates the folder is of
out/embeddings/TASK/       the folder of an embed job, of its images
out/embeddings/TASK-texts/ of its captions or prompts
out/metrics/TASK.json      written last: the task is measured
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from siglip_jax.evaluation import TEMPLATES
from siglip_jax.jobs.durable import write_json
from siglip_jax.jobs.space import space_of
from siglip_jax.messages import choose, counted
from siglip_jax.pretrained import Pretrained
from siglip_jax.run_folder import claim_record, differences, locked, make_run_folder
from siglip_jax.suites.catalogue import chosen, find_suite
from siglip_jax.suites.layouts import NoData, check_root, task_data
from siglip_jax.suites.measurement import Measurement, Report, Scorers, Stopped
from siglip_jax.suites.result import TaskResult, read_result, write_result
from siglip_jax.suites.task import Suite, Task
from siglip_jax.suites.task_data import Captions, Classes

RECORD = "suite.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What came of a suite.

    Attributes:
      suite: which.
      model, profile: what was measured.
      tasks: those that were asked for.
      results: of those that are measured, by name.
      missing: why the others are not, by name.
      signal: that told it to stop; the same call goes on.
    """

    suite: Suite
    model: str
    profile: str
    tasks: tuple[Task, ...]
    results: Mapping[str, TaskResult]
    missing: Mapping[str, str]
    signal: int | None = None

    @property
    def code(self) -> int:
        """Of a process that ends with it: 0; 2 if a task is missing; 143 or 130 if told to."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if len(self.results) == len(self.tasks) else 2


def run_suite(
    suite: Suite | str,
    data: str,
    out: str | os.PathLike[str],
    *,
    model: Pretrained | Callable[[], Pretrained],
    name: str | None = None,
    only: Sequence[str] | None = None,
    templates: str | None = None,
    batch_size: int | None = None,
    max_error_share: float = 0.01,
    report: Report = lambda task, progress: None,
) -> SuiteResult:
    """Measures a model on the tasks of a suite; the same call goes on where it was interrupted.

    All data are looked at before anything is computed, and a model that is given as a function
    is loaded only if there is something to compute.

    Args:
      suite: one of `SUITES`, or its name.
      data: the folder with one for each task, see `siglip_jax.suites.layouts`; or "tfds".
      out: folder for embeddings and metrics, of this suite, model and data alone.
      model: what `siglip_jax.load` returned, or what does it.
      name: of the model, where it is a function.
      only: names of tasks; default: all.
      templates: name of one of `siglip_jax.evaluation.TEMPLATES`, for all classes; default:
        the suite's where the model is prepared as big_vision does, else those of the data.
      batch_size, max_error_share: as for `siglip_jax.jobs.embed`.
      report: called with the name of a task and a `JobProgress` a few times a second.

    Raises:
      ValueError: one line: for an unknown name, data that do not fit together, too many
        images that cannot be read, or a folder of something else.
    """
    suite = find_suite(suite) if isinstance(suite, str) else suite
    tasks = chosen(suite, only)
    if templates is not None:
        choose("templates", templates, tuple(TEMPLATES))
    folder = Path(out).expanduser()
    began = make_run_folder(folder, RECORD, "suite")
    asked: dict[str, Any] = {"format": 1, "suite": suite.name, "data": _named(data)}
    asked["templates"] = templates
    there = _record(folder) if began else None
    if there is not None:
        _refuse(folder, there, asked, ("model", "profile", "space"))
    results = {
        task.name: result
        for task in tasks
        if there is not None and (result := read_result(folder, task.name)) is not None
    }
    opened, missing = _opened(tasks, results, data)
    known = name or (model.name if isinstance(model, Pretrained) else None)
    if there is not None and not opened and known == there["model"]:
        model_name, profile = there["model"], there["profile"]
        return SuiteResult(
            suite=suite,
            model=model_name,
            profile=profile,
            tasks=tasks,
            results=results,
            missing=missing,
        )
    loaded = model if isinstance(model, Pretrained) else model()
    loaded.config.needs("image", "text", what="a suite", name=loaded.name)
    with locked(folder, what="suite"):
        asked |= {"model": loaded.name, "profile": loaded.profile.name}
        asked["space"] = space_of(loaded, there["space"] if there else None)
        if claim_record(folder / RECORD, lambda: write_json(folder / RECORD, asked)):
            _refuse(folder, _record(folder), asked, ("model",))
        for left in [*folder.glob(".*.tmp"), *folder.glob("metrics/.*.tmp")]:
            left.unlink(missing_ok=True)  # of a process that was killed
        scorers = Scorers(batch_size)
        run = Measurement(folder, suite, loaded, templates, scorers, max_error_share, report)
        signal = None
        for task, found in opened.items():
            try:
                results[task.name] = run.measured(task, found)
            except Stopped as stopped:
                signal = stopped.signal
                break
            write_result(folder, results[task.name])
    order = {task.name: results[task.name] for task in tasks if task.name in results}
    return SuiteResult(
        suite=suite,
        model=loaded.name,
        profile=loaded.profile.name,
        tasks=tasks,
        results=order,
        missing=missing,
        signal=signal,
    )


def _opened(
    tasks: Sequence[Task], results: Mapping[str, TaskResult], data: str
) -> tuple[dict[Task, Classes | Captions], dict[str, str]]:
    """The data of the tasks that are not measured yet, and why some cannot be."""
    opened: dict[Task, Classes | Captions] = {}
    missing: dict[str, str] = {}
    if any(task.name not in results for task in tasks):
        check_root(data)
    for task in tasks:
        if task.name in results:
            continue
        if task.kind == "association":
            missing[task.name] = "not measured here: which k of n images belong to a cue"
            continue
        try:
            opened[task] = task_data(task, data)
        except NoData as error:
            missing[task.name] = f"no data: {error}"
        except ValueError as error:
            # Keys of some messages do not say whose they are.
            raise ValueError(f"{task.name}: {error}") from error
    return opened, missing


def _named(data: str) -> str:
    """What a record calls the data: the same from any working folder."""
    return data if data == "tfds" or "://" in data else str(Path(data).expanduser().resolve())


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        found = json.loads(path.read_text("utf-8"))
        return {key: found[key] for key in found} | {"space": found["space"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the record of a suite: {error}") from error


def _refuse(folder: Path, there: dict[str, Any], here: dict[str, Any], free: Sequence[str]) -> None:
    """A ValueError if a folder is of something else; says of what."""
    found = differences(there, here, free)
    if not found:
        return
    names = {one.name.partition(".")[0] for one in found}
    if "space" in names:
        said = [f"the model is {there['model']} there and {here['model']} here"]
        if there["model"] == here["model"]:
            said = [str(one) for one in found if one.name.startswith("space.")]
    else:
        said = [str(one) for one in found]
    more = f"; and {counted(len(said) - 3, 'more')}" if len(said) > 3 else ""
    raise ValueError(f"{folder} holds another suite: {'; '.join(said[:3])}{more}; choose another")
