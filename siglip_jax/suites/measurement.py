"""A task, measured: embeddings by jobs that go on, then its metrics."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from siglip_jax.data.item import Source
from siglip_jax.evaluation import TEMPLATES, class_embeddings, mean_over
from siglip_jax.jobs import JobProgress, JobResult, embed
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring import Scorer
from siglip_jax.search import open_embeddings
from siglip_jax.suites.measures import (
    caption_metrics,
    class_metrics,
    multilabel_metrics,
)
from siglip_jax.suites.result import TaskResult
from siglip_jax.suites.task import Suite, Task
from siglip_jax.suites.task_data import Captions, Classes, texts_source

_KIND = {"zeroshot": "classification", "multilabel": "classification"}
Report = Callable[[str, JobProgress], None]


class Scorers:
    """The scorers of a suite's jobs, each made once: in the place of a saved program.

    A job has a scorer of its own otherwise, and compiles what the one before has compiled.
    """

    def __init__(self, batch_size: int | None) -> None:
        devices = jax.local_devices()
        size = batch_size or (32 if devices[0].platform == "cpu" else 256 * len(devices))
        self.batch_sizes = {"batch_size": size, "text_batch_size": size}
        self._made: list[Scorer] = []

    def start(self, scorer: Scorer) -> Scorer:
        """The one that was made first of its kind."""
        kind = scorer.profile, scorer.tokenizer is None
        made = next((m for m in self._made if (m.profile, m.tokenizer is None) == kind), None)
        if made is None:
            self._made.append(scorer)
        return made or scorer


class Stopped(Exception):
    """A job was told to stop."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What the tasks of a suite share while it runs.

    Attributes:
      folder: of the suite.
      templates: name of a list, in place of the suite's and those of the data.
      scorers: of its jobs.
      max_error_share, report: as for `run_suite`.
    """

    folder: Path
    suite: Suite
    model: Pretrained
    templates: str | None
    scorers: Scorers
    max_error_share: float
    report: Report

    def measured(self, task: Task, data: Classes | Captions) -> TaskResult:
        """The result of a task.

        Raises:
          ValueError: if too many images cannot be read, or none has a caption.
          Stopped: if the process is told to stop.
        """
        model = self.model if isinstance(data, Captions) else self._cropped
        keys, zimg = self._embedded(model, task.name, data.images, "images")
        good: Any = np.isfinite(zimg).all(axis=1)
        errors = int((~good).sum())
        keys = [key for key, one in zip(keys, good, strict=True) if one]
        zimg = zimg[good]
        if not len(zimg):
            raise ValueError(f"{task.name}: none of its {errors:,} images can be read")
        if isinstance(data, Classes):
            found = self._classes(task, data, keys, zimg)
        else:
            found = self._captions(task, data, keys, zimg)
        return dataclasses.replace(found, errors=errors)

    def _classes(self, task: Task, data: Classes, keys: list[str], zimg: np.ndarray) -> TaskResult:
        rows = [row for row, key in enumerate(keys) if key in data.right]
        right = [data.right[keys[row]] for row in rows]
        if not right:
            raise ValueError(f"{task.name}: no image that can be read is of a class")
        zimg, name = zimg[rows], self._template_name(data)
        prompts = TEMPLATES[name] if name else list(data.templates or ())
        classes = class_embeddings(
            lambda texts: self._texts(task, texts),
            list(data.names),
            prompts,
            canonical=data.canonical and self.model.profile.name == "big_vision",
            aliases="none",  # a comma is part of many a name
        )
        if task.kind == "multilabel":
            metrics = multilabel_metrics(zimg, classes, right)
        else:
            known = data.groups
            groups = [known[keys[row]] for row in rows] if known else None
            metrics = class_metrics(task, zimg, classes, right, groups)
        return self._result(
            task,
            metrics,
            templates=name,
            images=len(rows),
            unlabelled=len(keys) - len(rows),
            about={"classes": len(data.names), "prompts": len(prompts), "crop": self._crop},
        )

    def _captions(
        self, task: Task, data: Captions, keys: list[str], zimg: np.ndarray
    ) -> TaskResult:
        index = {key: row for row, key in enumerate(keys)}
        every: list[str] = []
        spans: dict[str, tuple[int, int, list[str]]] = {}
        for language, captions in data.captions.items():
            own = [(key, text) for key in index for text in captions.get(key, ())]
            if own:
                spans[language] = (len(every), len(every) + len(own), [key for key, _ in own])
                every += [text for _, text in own]
        if not every:
            raise ValueError(f"{task.name}: no image that can be read has a caption")
        ztxt = self._texts(task, every)
        languages = {}
        for language, (begin, end, owners) in spans.items():
            with_text = list(dict.fromkeys(owners))
            place = {key: row for row, key in enumerate(with_text)}
            languages[language] = caption_metrics(
                zimg[[index[key] for key in with_text]],
                ztxt[begin:end],
                [place[key] for key in owners],
            )
        counts = {language: end - begin for language, (begin, end, _) in spans.items()}
        return self._result(
            task,
            mean_over(languages),
            languages=languages,
            images=len(keys),
            about={"texts": counts},
        )

    def _result(self, task: Task, metrics: dict[str, float], **rest: Any) -> TaskResult:
        return TaskResult(
            task=task.name,
            model=self.model.name,
            profile=self.model.profile.name,
            kind=_KIND.get(task.kind, "retrieval"),
            metrics=metrics,
            **rest,
        )

    def _template_name(self, data: Classes) -> str | None:
        if self.templates:
            return self.templates
        if self.suite.templates and self.model.profile.name == "big_vision":
            return self.suite.templates
        return None if data.templates else "clip_paper"

    def _texts(self, task: Task, texts: list[str]) -> np.ndarray:
        name = f"{task.name}-texts"
        _, z = self._embedded(self.model, name, texts_source(texts), "texts")
        return z

    @property
    def _crop(self) -> float:
        """As the suite has it, where the model is prepared as the papers'."""
        profile = self.model.profile
        ours = profile.name == "big_vision" and profile.image.res is not None
        return self.suite.crop if ours else 1.0

    @property
    def _cropped(self) -> Pretrained:
        """The model with the crop of images of classes."""
        if self._crop == 1:
            return self.model
        profile = self.model.profile
        image = dataclasses.replace(profile.image, crop=self._crop)
        return dataclasses.replace(self.model, profile=dataclasses.replace(profile, image=image))

    def _embedded(
        self, model: Pretrained, name: str, source: Source, what: str
    ) -> tuple[list[str], np.ndarray]:
        """Keys and embeddings in the order of the source, by a job that goes on."""
        inside = self.folder / "embeddings" / name
        inside.parent.mkdir(exist_ok=True)
        result = embed(
            source,
            inside,
            model=model,
            what=what,
            program=self.scorers,
            max_error_share=self.max_error_share,
            report=lambda progress: self.report(name, progress),
        )
        _check(result, name)
        embeddings = open_embeddings(inside)
        rows = embeddings.rows(range(len(embeddings)))
        z = np.concatenate([np.asarray(part, np.float32) for part in embeddings.chunks(8192)])
        return [row.key for row in rows], z


def _check(result: JobResult, name: str) -> None:
    """Raises unless a job is finished, and well."""
    if result.signal is not None and not result.finished:
        raise Stopped(result.signal)
    if result.code:
        raise ValueError(f"{name}: {result.sentence()}")
