"""`embed` and `score`: jobs over any number of items, that survive being killed."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from siglip_jax.calibration import Calibration, Identity
from siglip_jax.classifier import Classifier
from siglip_jax.config import Layer
from siglip_jax.data import ErrorShare, Source, open_items
from siglip_jax.data.failures import SettingError
from siglip_jax.data.item import Keeping, Stamped
from siglip_jax.jobs.bucket import folder_at
from siglip_jax.jobs.bucket_ledger import make_ledger
from siglip_jax.jobs.durable import write_json
from siglip_jax.jobs.engine import check_engine
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.manifest import NAME, Manifest, check_folder, claim_folder, recorded_space
from siglip_jax.jobs.options import Options
from siglip_jax.jobs.own_output import refuse_own_output
from siglip_jax.jobs.own_process import OwnProcess
from siglip_jax.jobs.part import own_part
from siglip_jax.jobs.ray_actors import RayActors, ray_actors
from siglip_jax.jobs.result import SUMMARY, JobResult
from siglip_jax.jobs.retries import forget_what_is_done_again
from siglip_jax.jobs.update import brought_up_to_date
from siglip_jax.jobs.work import Work
from siglip_jax.model_files import open_model
from siglip_jax.pretrained import Pretrained
from siglip_jax.run_folder import locked
from siglip_jax.scoring.prompts import PLAIN
from siglip_jax.stop import Stop

SHARD_SIZE = 2048
FEATURES_SHARD_SIZE = 128  # a shard is held in memory: 215 MB in 16 bits, of So400m/14-384
_PROMISE = "what is in hand is finished, and the same command goes on behind it"
KEPT = "what is finished is kept, and "


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
    """Runs a job, or goes on with it. A function is called for the model once it is needed.

    With `engine` it is called in each actor, and has to be one that can be pickled.
    """
    folder = folder_at(out)
    check_engine(options)
    if job.what == "texts" and options.decode_processes:
        raise SettingError("texts are not decoded", "decode_processes", "leave out {}")
    errors = ErrorShare(options.max_error_share, kept=KEPT)
    if isinstance(source, Keeping):
        job = dataclasses.replace(job, keep=source.kept())
    part = own_part(folder, options.part, shared=options.shared, update=options.update)
    shared = options.shared or part is not None or jax.distributed.is_initialized()
    if options.engine is not None and shared:
        raise ValueError("an engine is told by one process alone, and this one is of several")
    for name in ("retry", "update"):
        if getattr(options, name) and shared:
            raise SettingError(
                "several processes share the folder", name, "{} is for one process alone"
            )
    refuse_own_output(folder, (getattr(source, "origin", None) or {}).get("specs", ()))
    check_folder(folder)
    here = folder if isinstance(folder, Path) else None
    held = locked(here, shared=shared) if here else contextlib.nullcontext()
    processes = _processes(model, options, claims=shared and part is None)
    with held, processes as process, Stop(_PROMISE) as stop:
        shards = source.shards()
        if not shards:
            raise ValueError("there is nothing to do: no shard of the source has an item")
        own = None if part is None else part.shards(len(shards))
        facts = process.facts(recorded_space(folder), len(shards), stop)
        job.check(facts.config, facts.name)
        manifest = Manifest(
            model=facts.name,
            space=facts.space,
            t=facts.t,
            b=facts.b,
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
            model_here = Identity(facts.name, manifest.space["weights"], manifest.space["profile"])
            job.calibration.check(model=model_here, labels=job.labels, templates=job.templates)
        there = claim_folder(folder, manifest, update=options.update)
        if (shared or options.engine) and there.source.get("updates"):
            raise ValueError(f"{folder} has been updated, which is for one process at a time")
        ledger = make_ledger(folder, len(shards), own)
        if not shared:
            ledger.compact()
        forget_what_is_done_again(folder, ledger, options, shared=shared)
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
        ran = process.run(
            Work(job, source, folder, options),
            todo,
            manifest,
            ledger=ledger,
            errors=errors,
            stop=stop,
        )
        result = JobResult.of(
            folder,
            ledger,
            count,
            share=errors,
            removed=removed,
            signal=stop.signal,
            unreadable=ran.unreadable,
            run=ran.meter,
            part=part,
        )
        if result.finished:
            if here:
                _clean(_left_behind(here))
            ledger.compact()
            write_json(folder / SUMMARY, result.describe())
        return result


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


def _processes(
    model: Pretrained | str | Callable[[], Pretrained], options: Options, *, claims: bool
) -> contextlib.AbstractContextManager[OwnProcess | RayActors]:
    """What does the shards: this process, or actors of Ray while the block runs."""
    if options.engine is None:
        return contextlib.nullcontext(OwnProcess(model, claims=claims))
    return ray_actors(options.engine, model)


def _clean(left: Iterable[Path]) -> None:
    """Removes what killed processes have left."""
    for path in list(left):
        path.unlink(missing_ok=True)


def _left_behind(folder: Path) -> Iterator[Path]:
    """What is of no use once all shards are done, even if others are still about to see that."""
    yield from (folder / "claims").glob("[0-9]*")
    yield from folder.glob(f".{NAME}.*.tmp")  # written once
    for name in ("data", "img_emb", "text_emb", "features", "metadata", "ledger"):
        yield from (folder / name).glob(".*.tmp")
