"""Ours beside what is published: rows, in percent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.suites.published_values import (
    Published,
    published,
    published_average,
)
from siglip_jax.suites.run import SuiteResult
from siglip_jax.suites.task import Task

_SHORT = {
    "mean_per_class_recall": "per class",
    "mean_average_precision": "mAP",
    "image_retrieval_recall@1": "T→I @1",
    "text_retrieval_recall@1": "I→T @1",
    "mean_recall@1": "mean @1",
    "acc1": "acc@1",
    "acc5": "acc@5",
}


class Row(NamedTuple):
    """A metric of a task, with one published value.

    Attributes:
      task: its name; "average" for that of all.
      title: of the task.
      metric: as in the result.
      ours, published: in percent; None for no value.
      source: of the published value, for a table; empty for none.
      where: the document.
      same: "yes", or "no: " and what was otherwise; empty where nothing is published.
      note: why there is no value of ours.
    """

    task: str
    title: str
    metric: str
    ours: float | None
    published: float | None = None
    source: str = ""
    where: str = ""
    same: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the published one, in percentage points."""
        if self.ours is None or self.published is None:
            return None
        return self.ours - self.published


def table(result: SuiteResult) -> list[Row]:
    """A row for each published value of a task, or one where there is none; then the average."""
    rows = [row for task in result.tasks for row in _task(result, task)]
    average = result.suite.average
    if average and len(result.results) == len(result.suite.tasks):
        means = [_of(result, task, task.metric) for task in result.tasks]
        value = published_average(result.model, average)
        ours = float(np.mean([mean for mean in means if mean is not None]))
        rows.append(_row(result, "average", f"mean of {len(means)}", "", ours, value, None))
    return rows


def spoken(metric: str) -> str:
    """A metric's name for a narrow column.

    >>> spoken("mean_per_class_recall"), spoken("acc_wg")
    ('per class', 'acc_wg')
    """
    return _SHORT.get(metric, metric)


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table as text, with its head."""
    head = ("TASK", "METRIC", "OURS", "PUBLISHED", "DIFF.", "SAME", "SOURCE")
    found: list[tuple[str, ...]] = [head]
    last = ""
    for row in rows:
        numbers = (_number(row.ours), _number(row.published), _number(row.difference, "+.2f"))
        if row.ours is None:
            numbers = (row.note.partition(":")[0], *numbers[1:])
        title = "" if row.task == last else row.title
        found.append((title, spoken(row.metric), *numbers, row.same, row.source))
        last = row.task
    return found


def describe(row: Row) -> dict[str, Any]:
    """A row as plain JSON types."""
    return row._asdict() | {"difference": row.difference}


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"


def _task(result: SuiteResult, task: Task) -> list[Row]:
    note = result.missing.get(task.name, "")
    if task.name not in result.results and not note:
        note = "not yet: the same command goes on"
    values = published(result.model, task)
    rows: list[Row] = []
    named = {value.metric for value in values}
    for metric in dict.fromkeys((*task.metrics, *(value.metric for value in values))):
        own = [value for value in values if value.metric == metric]
        ours = _of(result, task, metric)
        if metric not in named and (metric != task.metric or (named and ours is None)):
            continue
        rows += [
            _row(result, task.name, task.title, metric, ours, value, task, note)
            for value in own or [None]
        ]
    return rows


def _of(result: SuiteResult, task: Task, metric: str) -> float | None:
    found = result.results.get(task.name)
    value = found.metrics.get(metric) if found else None
    return None if value is None else 100 * value


def _row(
    result: SuiteResult,
    name: str,
    title: str,
    metric: str,
    ours: float | None,
    value: Published | None,
    task: Task | None,
    note: str = "",
) -> Row:
    note = "" if ours is not None else note or "not in the data"
    if value is None:
        return Row(name, title, metric, ours, note=note)
    differs = []
    if task is not None and ours is not None:
        found = result.results[task.name]
        crop = found.about.get("crop", 1.0)
        differs = value.differs(task, result.profile, found.templates, crop)
    elif result.profile != value.origin.profile:
        differs = ["preprocessing"]
    same = "" if ours is None else f"no: {', '.join(differs)}" if differs else "yes"
    return Row(
        *(name, title, metric, ours, value.value),
        value.origin.name,
        value.origin.where,
        same,
        note,
    )
