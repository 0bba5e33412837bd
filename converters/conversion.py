"""`convert`: any checkpoint into any format, tensor by tensor, proved bit for bit.

No more is in memory than the tensor at hand (of a stacked checkpoint: the stacks that
are being taken apart). The output appears whole or not at all; before it does, it is
read back and compared with what was read, and a certificate is laid beside it.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.config import Siglip, Tower
from siglip_jax.errors import ModelError
from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.weights.digest import tensor_digest
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.reader import Header

from .certificate import certificate_path, make_certificate, write_certificate
from .checkpoint import OpenCheckpoint
from .destination import replacing
from .folder_images import preprocessing_notes
from .formats import FORMATS, format_named, open_checkpoint
from .loop_form import LoopForm
from .record import Record, file_digests
from .side_files import side_file_settings
from .target_head import TargetHead, head_steps, stored_head, target_head
from .target_profile import own_images
from .tensors import Output, PlanStep, check, describe, outputs, stored_names

Progress = Callable[[int, int], None]
DTYPES = ("float32", "bfloat16", "float16")


def plan(
    source: str | Path | OpenCheckpoint,
    to: str,
    *,
    dtype: str | None = None,
    tower: Tower | None = None,
    scan_image: bool | None = None,
    scan_text: bool | None = None,
    config: Siglip | None = None,
    res: int | None = None,
    classifier: bool = True,
) -> list[PlanStep]:
    """What `convert` would write. Reads headers only; arguments as for `convert`."""
    with _opened(source, config, res) as opened:
        tower = _tower(opened, to, tower)
        head = target_head(opened, to, tower, dtype, keep=classifier)
        made = _outputs(opened, to, tower, dtype, scan_image, scan_text)
        return [*describe(opened, made), *head_steps(opened, head)]


def convert(
    source: str | Path | OpenCheckpoint,
    destination: str | Path,
    *,
    to: str,
    dtype: str | None = None,
    tower: Tower | None = None,
    scan_image: bool | None = None,
    scan_text: bool | None = None,
    config: Siglip | None = None,
    res: int | None = None,
    pad: int | None = None,
    vocabulary: str | Path | None = None,
    name: str | None = None,
    exact: bool = False,
    classifier: bool = True,
    verify: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Converts a checkpoint and returns what was done.

    Args:
      source: a file or folder of any format, or an open `OpenCheckpoint`, which is left open.
      destination: a `.npz` file; the common name of a tensorstore checkpoint; else a
        folder.
      to: one of `FORMATS`.
      dtype: of every tensor written, one of `DTYPES`; None leaves them as they are.
      tower: "image" or "text" alone; timm has only the image tower.
      scan_image, scan_text: form of each tower's blocks in big_vision's formats and our
        own folder: stacked, one tensor a layer, or (None) as they are.
      config, res: what the source does not say itself; see `open_checkpoint`.
      pad: padding id of texts, 1 as SigLIP or 0 as SigLIP 2, if the source does not say.
      vocabulary: sentencepiece file; else the one beside the source, if there is any.
      name: what to call the model.
      exact: open_clip: an image tower that computes exactly what big_vision's does, in a folder
        that cannot be moved.
      classifier: of a fine-tune that tells classes apart, keep the classifier; False converts
        the tower alone.
      verify: read the output back and compare every bit before it appears.
      force: replace `destination` if it exists.
      progress: called with bytes done and bytes in all.

    Raises:
      ValueError: if the source cannot be read or is no SigLIP, the format cannot hold
        it or its classifier, something must be told, or `destination` exists.
    """
    destination = Path(destination)
    with _opened(source, config, res) as opened:
        tower = _tower(opened, to, tower)
        head = target_head(opened, to, tower, dtype, keep=classifier)
        made = _outputs(opened, to, tower, dtype, scan_image, scan_text)
        settings = side_file_settings(
            opened, to, tower, made, destination, pad, vocabulary, name, exact
        )
        images = own_images(opened, tower)
        tensors: dict[str, str] = {}
        reader = LoopForm(opened.reader)
        written = sum(output.header.nbytes for output in made)
        reread = sum(output.header.nbytes for output in made if output.parts) if verify else 0
        count = _Counter(written + reread, progress)

        def digest(part: str, array: np.ndarray) -> None:
            tensors[part] = tensor_digest(array)

        items = ((output.name, count(output.make(reader, digest))) for output in made)
        with replacing(destination, source=opened.path, force=force) as temporary:
            _write(temporary, to, opened.config, tower, made, items, settings, head)
            if verify:
                _verify(temporary, to, opened.config, tower, tensors, count, head)
            kept = images.record(_said(temporary, to)) if images is not None else None
            files = sorted(p for p in temporary.parent.rglob("*") if p.is_file())
            target_files = file_digests(files, temporary.parent)
            source_files = file_digests(opened.files, _base(opened))
            steps = describe(opened, made)
            left = stored_names(opened) - {name for step in steps for name in step.sources}
            dropped = opened.dropped | dict.fromkeys(sorted(left), f"not in the {tower} tower")
            if head is None:
                said = "the classifier, left out as asked"
                dropped |= dict.fromkeys(stored_head(opened), said)
            record = Record(
                source={"format": opened.format, "path": str(opened.path), "files": source_files},
                target={"format": to, "path": str(destination), "files": target_files},
                config=opened.config,
                tower=tower,
                plan=[*steps, *head_steps(opened, head)],
                dropped=dropped,
                added={o.name: o.step.constant for o in made if o.step and o.step.constant},
                parameters=sum(
                    map(math.prod, parameter_shapes(opened.config.only(tower)).values())
                ),
                tensors=dict(sorted(tensors.items())),
                exact=all(reader.dtype(n) == o.header.dtype for o in made for n in o.parts),
                verified=verify,
                preprocessing=kept,
                notes=(
                    *opened.reports,
                    *opened.notes,
                    *settings["notes"],
                    *preprocessing_notes(kept, to, opened.config),
                ),
            )
            write_certificate(certificate_path(temporary, to), make_certificate(record))
        return record


def _opened(
    source: str | Path | OpenCheckpoint, config: Siglip | None, res: int | None
) -> contextlib.AbstractContextManager[OpenCheckpoint]:
    if isinstance(source, OpenCheckpoint):
        return contextlib.nullcontext(source)
    return open_checkpoint(source, config=config, res=res)


def _tower(opened: OpenCheckpoint, to: str, tower: Tower | None) -> Tower | None:
    """The tower to convert: the one asked for, the only one there is, or the only one
    that the format holds.

    Raises:
      ValueError: if these disagree.
    """
    allowed = format_named(to).towers
    chosen = tower or opened.tower or (allowed[0] if len(allowed) == 1 else None)
    if opened.tower not in (None, chosen):
        raise ValueError(f"{opened.path} has only the {opened.tower} tower, not the {chosen} tower")
    if chosen not in allowed:
        what = f"the {chosen} tower alone" if chosen else "a whole model"
        others = [name for name, form in FORMATS.items() if chosen in form.towers]
        raise ValueError(f"{to} has no format for {what}; there is one in {', '.join(others)}")
    pool = opened.config.only(chosen).pool
    if pool is not None and pool not in format_named(to).pools:
        others = [name for name, form in FORMATS.items() if pool in form.pools]
        raise ValueError(
            f"{to} cannot say that an image tower has pool={pool!r}; {', '.join(others)} can"
        )
    return chosen


def _outputs(
    opened: OpenCheckpoint,
    to: str,
    tower: Tower | None,
    dtype: str | None,
    scan_image: bool | None,
    scan_text: bool | None,
) -> list[Output]:
    check(opened)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    steps = format_named(to).steps
    if steps is not None and (scan_image or scan_text):
        raise ModelError(
            f"{to} stores each layer by itself",
            needs="loop",
            advice="leave out scan_image and scan_text, which are for big_vision's formats",
        )
    return outputs(
        opened,
        steps(opened.config, tower) if steps else None,
        tower=tower,
        dtype=np.dtype(dtype) if dtype else None,
        scan_image=scan_image,
        scan_text=scan_text,
    )


def _said(path: Path, to: str) -> ImageProfile | None:
    """What the files that were written say about preparing images."""
    if format_named(to).config is None:
        return None
    with open_checkpoint(path) as written:
        return written.own_images.said if written.own_images is not None else None


def _write(
    path: Path,
    to: str,
    config: Siglip,
    tower: Tower | None,
    made: list[Output],
    items: Iterator[tuple[str, np.ndarray]],
    settings: dict[str, Any],
    head: TargetHead | None,
) -> None:
    form = format_named(to)
    headers = {output.name: output.header for output in made}
    if head is not None:
        headers |= {name: Header(a.shape, a.dtype) for name, a in head.tensors.items()}
        items = itertools.chain(items, head.tensors.items())
        settings = {**settings, "classifier": head.classifier}
    form.write_weights(path, headers, items)
    if form.write_files is not None:
        form.write_files(path, config, tower, **settings)


def _verify(
    path: Path,
    to: str,
    config: Siglip,
    tower: Tower | None,
    tensors: dict[str, str],
    count: "_Counter",
    head: TargetHead | None,
) -> None:
    """Raises unless what was written is read back as what was read, configuration included."""
    config = config.only(tower)
    # big_vision's formats do not state everything; the others have to.
    with open_checkpoint(path, config=None if format_named(to).config else config) as written:
        if written.config != config:
            raise RuntimeError(f"{path} is read back as {written.config}, not {config}")
        check(written)
        if head is not None and not head.classifier.equals(written.classifier):
            raise RuntimeError(f"{path} is read back with another classifier")
        reader = LoopForm(written.reader)
        again = {name: tensor_digest(count(reader.read(name))) for name in reader.shapes}
    if wrong := sorted(n for n in {*again, *tensors} if again.get(n) != tensors.get(n)):
        raise RuntimeError(f"{path} is read back with other numbers in {', '.join(wrong[:5])}")


def _base(opened: OpenCheckpoint) -> Path:
    """The folder that the names of the source's files are relative to."""
    return opened.path if opened.path.is_dir() else opened.path.parent


class _Counter:
    """Passes tensors on and tells how many bytes there were."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def __call__(self, array: np.ndarray) -> np.ndarray:
        self._done += array.nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)
        return array
