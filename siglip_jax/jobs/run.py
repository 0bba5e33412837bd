"""`embed` and `score`: jobs over any number of items, that survive being killed."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from siglip_jax.calibration import Calibration, Identity
from siglip_jax.classifier import Classifier
from siglip_jax.config import Layer
from siglip_jax.data import ErrorShare, Source, open_items
from siglip_jax.data.failures import SettingError
from siglip_jax.data.item import Keeping, Stamped
from siglip_jax.jobs.bucket import Place, folder_at
from siglip_jax.jobs.bucket_ledger import make_ledger
from siglip_jax.jobs.checked import damage
from siglip_jax.jobs.claims import PATIENCE, AllMine, Claims
from siglip_jax.jobs.classes import Classes
from siglip_jax.jobs.durable import write_json
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.labels import Labels
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.manifest import Manifest, check_folder, claim_folder, recorded_space
from siglip_jax.jobs.own_output import refuse_own_output
from siglip_jax.jobs.part import own_part
from siglip_jax.jobs.progress import JobProgress
from siglip_jax.jobs.result import SUMMARY, JobResult
from siglip_jax.jobs.sink import make_sink
from siglip_jax.jobs.space import space_of
from siglip_jax.jobs.update import brought_up_to_date
from siglip_jax.jobs.worker import Worker
from siglip_jax.model_files import open_model
from siglip_jax.pretrained import Pretrained, load
from siglip_jax.programs import make_mesh
from siglip_jax.run_folder import locked
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.batches import usual_batch_size
from siglip_jax.scoring.preparation import warn_of_rotation
from siglip_jax.scoring.prompts import PLAIN
from siglip_jax.stop import Stop

SHARD_SIZE = 2048
FEATURES_SHARD_SIZE = 128  # a shard is held in memory: 215 MB in 16 bits, of So400m/14-384
_PROMISE = "what is in hand is finished, and the same command goes on behind it"
KEPT = "what is finished is kept, and "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a job: none of it changes what is computed.

    Attributes:
      batch_size: items a step, over the local devices; 32 on a CPU and 256 on each other
        device, or fewer where there are few items.
      max_error_share: of items that may be unreadable before the job stops.
      shared: other processes work on the same folder; so they do under `jax.distributed`. On a
        disk that all see: in a bucket they have parts.
      part: do this part of the shards only, such as "2/8"; other processes do the others, with
        no word between them. So it is in a bucket under `jax.distributed`.
      patience: seconds until another process that shows no life is replaced.
      threads: that decode; default: as many as there are cores.
      decode_processes: that decode in the place of threads, which share Python's lock, for hosts
        with many cores; 0 for threads.
      memory: bytes of files and images being decoded to hold, whatever their sizes.
      label_memory: bytes of label embeddings that each device may keep.
      retry: do the shards again in which something failed for a reason that may pass (a server
        or a disk that did not answer: `siglip_jax.data.failures`); "all" for whatever failed.
        A job that is not finished does the former anyway.
      update: the source may have changed: what went is taken out of the folder, what is new or
        other is embedded. Not with `shared`.
      program: a saved one to start from (`siglip_jax.programs.load_program`), with its batches.
      report: called with a `JobProgress` a few times a second.
    """

    batch_size: int | None = None
    max_error_share: float = 0.01
    shared: bool = False
    part: str | tuple[int, int] | None = None
    patience: float = PATIENCE
    threads: int | None = None
    decode_processes: int = 0
    memory: int = 2**30
    label_memory: int | None = None
    retry: bool | Literal["all"] = False
    update: bool = False
    program: Any = None
    report: Callable[[JobProgress], None] = lambda progress: None

    def __post_init__(self) -> None:
        count = self.decode_processes
        if type(count) is not int or count < 0:
            raise SettingError(
                f"expected a whole number of processes, 0 for threads, got {count!r}",
                "decode_processes",
                "change {}",
            )


def embed(
    source: Source | str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    model: Pretrained | str,
    what: str = "images",
    format: str = "parquet",
    store: str = "float32",
    layer: Layer | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    key_column: str | None = None,
    separator: str | None = None,
    keep: Sequence[str] = (),
    shard_size: int | None = None,
    **options: Any,
) -> JobResult:
    """Embeds images or texts into a folder; the same call goes on where it was interrupted.

    Args:
      source: what `siglip_jax.data.open_items` opens, one or several; or a `Source`.
      out: folder for the result, see `siglip_jax.jobs.manifest`; made if need be. Or the URL of
        one in a bucket, `gs://...` or `s3://...`.
      model: a name as for `siglip_jax.load`, or what it returned.
      what: "images" or "texts".
      format: "parquet", or "npy" for the layout of clip-retrieval and autofaiss.
      store: "float32" or "float16"; of patches "bfloat16" too.
      layer: store the patches (patches, d) of images as this layer gives them, in a column
        `features`, in place of embeddings; as for `Scorer.features`. `open_features` reads them.
      image_column, text_column, key_column, separator: see `siglip_jax.data.open_items`.
      keep: columns of the source that rows carry along beside key and embedding, see
        `siglip_jax.data.open_items`; in order. A source of one's own says so itself
        (`siglip_jax.data.Keeping`).
      shard_size: items that are done whole or not at all, where the source has no shards;
        default: 2,048, and 128 with `layer`.
      options: see `Options`.

    Raises:
      ValueError: if something cannot be read or is no choice, the folder holds another job,
        another process is writing to it, or too many items are in error.
      DiskFull: if there is no room. What is finished is kept.
    """
    job = Job(kind="embed", what=what, format=format, store=store, layer=layer)
    opened = _opened(
        source,
        job.what,
        shard_size or (SHARD_SIZE if layer is None else FEATURES_SHARD_SIZE),
        image_column=image_column,
        text_column=text_column,
        key_column=key_column,
        separator=separator,
        keep=keep,
    )
    return run(job, opened, out, model, Options(**options))


def score(
    source: Source | str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    model: Pretrained | str,
    labels: Sequence[str] = (),
    templates: Sequence[str] = PLAIN,
    top: int | None = None,
    calibration: Calibration | None = None,
    threshold: float | None = None,
    pairs: bool = False,
    image_column: str | None = None,
    text_column: str | None = None,
    key_column: str | None = None,
    separator: str | None = None,
    keep: Sequence[str] = (),
    shard_size: int = SHARD_SIZE,
    **options: Any,
) -> JobResult:
    """Scores images with labels, or with their own texts, into a folder.

    Args:
      labels, templates: as for `Scorer.score`; there may be millions of labels. Without
        any, a model with a classifier scores its own classes.
      top: store the best labels only; needed where there are more than 4,096.
      calibration: of this model and these labels, for the probabilities.
      threshold: a probability; labels that reach it, or else the calibration's thresholds, are
        stored as `accepted`.
      pairs: score each image with its own text, without labels.
      others: as for `embed`.

    Raises:
      ValueError, DiskFull: as `embed`.
    """
    if isinstance(labels, str):
        raise ValueError(f"labels must be a list of strings, got the string {labels!r}")
    job = Job(
        kind="score",
        what="pairs" if pairs else "images",
        labels=tuple(labels),
        templates=tuple(templates),
        top=top,
        calibration=calibration,
        threshold=threshold,
        classifier=None if labels or pairs else _classifier(model),
    )
    opened = _opened(
        source,
        job.what,
        shard_size,
        image_column=image_column,
        text_column=text_column,
        key_column=key_column,
        separator=separator,
        keep=keep,
    )
    return run(job, opened, out, model, Options(**options))


def run(
    job: Job,
    source: Source,
    out: str | os.PathLike[str],
    model: Pretrained | str | Callable[[], Pretrained],
    options: Options,
) -> JobResult:
    """Runs a job, or goes on with it. A function is called for the model once it is needed."""
    folder = folder_at(out)
    errors = ErrorShare(options.max_error_share, kept=KEPT)
    if isinstance(source, Keeping):
        job = dataclasses.replace(job, keep=source.kept())
    part = own_part(folder, options.part, shared=options.shared, update=options.update)
    shared = options.shared or part is not None or jax.distributed.is_initialized()
    for name in ("retry", "update"):
        if getattr(options, name) and shared:
            raise SettingError(
                "several processes share the folder", name, "{} is for one process alone"
            )
    refuse_own_output(folder, (getattr(source, "origin", None) or {}).get("specs", ()))
    check_folder(folder)
    here = folder if isinstance(folder, Path) else None
    held = locked(here, shared=shared) if here else contextlib.nullcontext()
    with held, Stop(_PROMISE) as stop:
        shards = source.shards()
        if not shards:
            raise ValueError("there is nothing to do: no shard of the source has an item")
        own = None if part is None else part.shards(len(shards))
        if not isinstance(model, Pretrained):
            local = make_mesh(jax.local_devices())
            model = load(model, mesh=local) if isinstance(model, str) else model()
        job.check(model.config, model.name)
        manifest = Manifest(
            model=model.name,
            space=space_of(model, recorded_space(folder)),
            t=_number(model.params.get("t")),
            b=_number(model.params.get("b")),
            job=job.describe(),
            source={
                "identity": source.identity(),
                "shards": len(shards),
                "contents": source.contents() if isinstance(source, Stamped) else None,
                # Where `siglip_jax.search` finds the images again.
                "origin": getattr(source, "origin", None),
            },
        )
        if job.calibration is not None:
            model_here = Identity(model.name, manifest.space["weights"], manifest.space["profile"])
            job.calibration.check(model=model_here, labels=job.labels, templates=job.templates)
        there = claim_folder(folder, manifest, update=options.update)
        if shared and there.source.get("updates"):
            raise ValueError(f"{folder} has been updated, which is for one process at a time")
        ledger = make_ledger(folder, len(shards), own)
        if not shared:
            ledger.compact()
        entries = ledger.entries()
        begun = not (folder / SUMMARY).exists()
        asked = bool(options.retry)
        for one in list(damage(folder, entries.values(), missing=asked, begun=begun)):
            if not shared and one.path.exists():
                warnings.warn(f"{one}; its shard is done again", stacklevel=2)
            ledger.forget(one.shard)
            (folder / SUMMARY).unlink(missing_ok=True)
        if not shared:
            _forget_errors(folder, ledger, options)
        ledger.flush()
        changes = brought_up_to_date(folder, ledger, source, there, manifest, update=options.update)
        entries = ledger.entries()
        mine = range(len(shards)) if own is None else own
        todo = [shard for shard in mine if shard not in entries]
        count, removed = len(shards), None
        if changes:
            source, removed = changes
            todo = source.todo()
            count = len(entries) + len(todo)
        errors.count = sum(
            entry.errors for shard, entry in entries.items() if own is None or shard in own
        )
        # Of a part that is done, the others may not be.
        already = (folder / SUMMARY).exists() or (part is not None and len(entries) < count)
        if not todo and already:
            return JobResult.of(
                folder, ledger, count, share=errors, already=True, removed=removed, part=part
            )
        if here and not shared:
            _clean(here.rglob(".*.tmp"))
        scorer = _scorer(model, job, source, options)
        claims: AllMine | Claims = AllMine(todo)
        if here and shared and part is None:
            # Processes begin at different places, and seldom ask for the same shard.
            begin = int.from_bytes(os.urandom(4)) % max(len(todo), 1)
            order = todo[begin:] + todo[:begin]
            claims = Claims(here, ledger, order, stop, options.patience)
        worker = Worker(
            source,
            scorer,
            what=job.what,
            store=job.store,
            layer=job.layer,
            labels=_labels(scorer, job, folder, options),
            ledger=ledger,
            sink=make_sink(folder, job, manifest),
            claims=claims,
            stop=stop,
            errors=errors,
            threads=options.threads or os.cpu_count() or 1,
            decode_processes=0 if job.what == "texts" else options.decode_processes,
            memory=options.memory,
            report=options.report,
        )
        try:
            worker.run()
        finally:
            warn_of_rotation(worker.rotated)
        result = JobResult.of(
            folder,
            ledger,
            count,
            share=errors,
            removed=removed,
            signal=stop.signal,
            unreadable=tuple(worker.unreadable),
            meter=worker.meter,
            part=part,
        )
        if result.finished:
            if here:
                _clean(_left_behind(here))
            ledger.compact()
            write_json(folder / SUMMARY, result.describe())
        return result


def _forget_errors(folder: Place, ledger: Ledger, options: Options) -> None:
    """Makes shards ones to be done in which something failed that is to be tried again."""
    finished = (folder / SUMMARY).exists()
    for shard, entry in ledger.entries().items():
        # An earlier version did not say which errors may pass.
        passing = entry.errors if entry.passing is None and options.retry else entry.passing
        if entry.errors if options.retry == "all" else passing and (options.retry or not finished):
            ledger.forget(shard)
            (folder / SUMMARY).unlink(missing_ok=True)


def _opened(
    source: Source | str | Sequence[str],
    what: Any,
    shard_size: int,
    keep: Sequence[str],
    **columns: str | None,
) -> Source:
    if isinstance(source, Source):
        if keep:
            problem = f"a {type(source).__name__} says itself what its items keep"
            raise SettingError(problem, "keep", "leave out {}")
        return source
    specs = [source] if isinstance(source, str | os.PathLike) else source
    return open_items(
        [os.fspath(spec) for spec in specs],
        **columns,
        keep=keep,
        only=what,
        shard_size=shard_size,
    )


def _classifier(model: Pretrained | str) -> Classifier | None:
    if isinstance(model, Pretrained):
        return model.classifier
    with open_model(model) as opened:
        return opened.classifier


def _labels(scorer: Scorer, job: Job, folder: Place, options: Options) -> Labels | Classes | None:
    if job.classifier is not None:
        return Classes(job.classifier, job.top)
    return Labels(scorer, job, folder, memory=options.label_memory) if job.labels else None


def _number(parameter: Any) -> float | None:
    """The temperature or the bias, which one tower alone has not."""
    return None if parameter is None else float(np.asarray(parameter)[0])


def _scorer(model: Pretrained, job: Job, source: Source, options: Options) -> Scorer:
    limit = usual_batch_size(jax.local_devices())
    sizes = [shard.items for shard in source.shards()]
    if None not in sizes:
        # Powers of two, so that few shapes are ever compiled.
        limit = min(limit, 1 << max(max(size or 0 for size in sizes) - 1, 0).bit_length())
    size = options.batch_size or limit
    sizes = {"batch_size": size, "text_batch_size": size}
    if options.program is not None:
        sizes |= options.program.batch_sizes
    if job.what == "pairs" and len(set(sizes.values())) > 1:
        raise ValueError(
            "pairs need a saved program with as many texts as images a batch, "
            f"got {sizes['batch_size']} and {sizes['text_batch_size']}"
        )
    scorer = model.scorer(tokenizer=job.what != "images" or bool(job.labels), **sizes)
    return options.program.start(scorer) if options.program is not None else scorer


def _clean(left: Iterable[Path]) -> None:
    """Removes what killed processes have left."""
    for path in list(left):
        path.unlink(missing_ok=True)


def _left_behind(folder: Path) -> Iterator[Path]:
    """What is of no use once all shards are done, even if others are still about to see that."""
    yield from (folder / "claims").glob("[0-9]*")
    for name in ("data", "img_emb", "text_emb", "features", "metadata", "ledger"):
        yield from (folder / name).glob(".*.tmp")
