"""`convert`: any checkpoint into any format, tensor by tensor, proved bit for bit.

No more is in memory than the tensor at hand (of a stacked checkpoint: the stacks that
are being taken apart). The output appears whole or not at all; before it does, it is
read back and compared with what was read, and a certificate is laid beside it.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.classifier import Classifier
from siglip_jax.config import Siglip, Tower
from siglip_jax.errors import ModelError
from siglip_jax.preprocessing.profiles import (
    ImageProfile,
    Profile,
    TextProfile,
    custom_profile,
)
from siglip_jax.preprocessing.text import Tokenizer
from siglip_jax.weights.digest import tensor_digest
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.reader import Header

from . import hf_tokenizer, siglip_folder
from .certificate import certificate_path, make_certificate, write_certificate
from .checkpoint import OpenCheckpoint, released_vocabulary
from .classifiers import head_tensors
from .destination import replacing
from .folder_images import FolderImages, preprocessing_notes
from .format import Format
from .formats import FORMATS, open_checkpoint
from .loop_form import LoopForm
from .record import Record, file_digests
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
        head = _head(opened, to, tower, dtype, keep=classifier)
        made = _outputs(opened, to, tower, dtype, scan_image, scan_text)
        return [*describe(opened, made), *_head_steps(opened, head)]


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
        head = _head(opened, to, tower, dtype, keep=classifier)
        made = _outputs(opened, to, tower, dtype, scan_image, scan_text)
        settings = _settings(opened, to, tower, made, destination, pad, vocabulary, name, exact)
        images = _own_images(opened, tower)
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
                dropped |= dict.fromkeys(_stored_head(opened), said)
            record = Record(
                source={"format": opened.format, "path": str(opened.path), "files": source_files},
                target={"format": to, "path": str(destination), "files": target_files},
                config=opened.config,
                tower=tower,
                plan=[*steps, *_head_steps(opened, head)],
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


def target_profile(
    source: OpenCheckpoint,
    to: str,
    *,
    tower: Tower | None = None,
    pad: int | None = None,
    vocabulary: Path | None = None,
) -> Profile | None:
    """The preprocessing by which what `convert` writes gives the scores that the model has here.

    A model of one's own has its profile; released weights, and others that bring none, have the
    one that is named for the system. None where nothing says how texts are padded.

    Raises:
      ValueError: as `convert`.
    """
    form, images = _format(to), _own_images(source, tower)
    if source.profile is not None and source.checkpoint is None:
        return _profile(source, tower, pad)
    pad = source.pad if pad is None else pad
    if pad is None and form.needs_pad(source.config, tower, vocabulary is not None):
        return None
    made = custom_profile(source.config, pad or 0, form.profile)
    if images is not None and images.said is not None:
        made = dataclasses.replace(made, name="folder", image=images.said)
    if vocabulary is None or pad is None or form.steps is None:
        return made
    text, _ = _text_profile(source, form, source.config, pad, vocabulary)
    return dataclasses.replace(made, text=text)


def _opened(
    source: str | Path | OpenCheckpoint, config: Siglip | None, res: int | None
) -> contextlib.AbstractContextManager[OpenCheckpoint]:
    if isinstance(source, OpenCheckpoint):
        return contextlib.nullcontext(source)
    return open_checkpoint(source, config=config, res=res)


def _format(to: str) -> Format:
    if to not in FORMATS:
        raise ValueError(f"unknown format {to!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[to]


def _tower(opened: OpenCheckpoint, to: str, tower: Tower | None) -> Tower | None:
    """The tower to convert: the one asked for, the only one there is, or the only one
    that the format holds.

    Raises:
      ValueError: if these disagree.
    """
    allowed = _format(to).towers
    chosen = tower or opened.tower or (allowed[0] if len(allowed) == 1 else None)
    if opened.tower not in (None, chosen):
        raise ValueError(f"{opened.path} has only the {opened.tower} tower, not the {chosen} tower")
    if chosen not in allowed:
        what = f"the {chosen} tower alone" if chosen else "a whole model"
        others = [name for name, form in FORMATS.items() if chosen in form.towers]
        raise ValueError(f"{to} has no format for {what}; there is one in {', '.join(others)}")
    pool = opened.config.only(chosen).pool
    if pool is not None and pool not in _format(to).pools:
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
    steps = _format(to).steps
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


class _Head(NamedTuple):
    """A classifier as it is written: its tensors by their names there."""

    classifier: Classifier
    tensors: dict[str, np.ndarray]


def _head(
    opened: OpenCheckpoint, to: str, tower: Tower | None, dtype: str | None, *, keep: bool
) -> _Head | None:
    """The classifier to write, None where there is none or it is to be left out.

    Raises:
      ValueError: if the format, or the tower, has no place for it.
    """
    found = opened.classifier
    if found is None or not keep:
        return None
    layer, pooling = _format(to).classifier or ("", None)
    if pooling == "map" and opened.config.pool == "gap":
        pooling = "mean"  # which is what that tower's pooling is
    if not layer or tower != "image" or pooling not in (None, found.pooling):
        what = {"mean": "the mean of the last tokens", "map": "the pooling head"}[found.pooling]
        raise ModelError(
            f"{opened.path} has a classifier of {len(found.labels)} classes on {what}, for which "
            f"{to} has no place",
            needs="classifier",
            advice="pass classifier=False to convert the tower without it",
        )
    if dtype is not None:
        kernel, bias = found.kernel.astype(dtype), found.bias.astype(dtype)
        found = dataclasses.replace(found, kernel=kernel, bias=bias)
    if _format(to).steps is None:
        return _Head(found, {f"{layer}/kernel": found.kernel, f"{layer}/bias": found.bias})
    return _Head(found, head_tensors(found, layer))


def _stored_head(opened: OpenCheckpoint) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the source's classifier in its own files."""
    if opened.classifier is None:
        return {}
    form = FORMATS[opened.format]
    layer = form.classifier[0] if form.classifier else "classifier"
    kernel, bias = opened.classifier.kernel.shape, opened.classifier.bias.shape
    if form.steps is None:
        return {f"{layer}/kernel": kernel, f"{layer}/bias": bias}
    return {f"{layer}.weight": kernel[::-1], f"{layer}.bias": bias}


def _head_steps(opened: OpenCheckpoint, head: _Head | None) -> list[PlanStep]:
    if head is None:
        return []
    rows = zip(_stored_head(opened).items(), head.tensors.items(), strict=True)
    return [
        PlanStep(
            sources=(name,),
            source_shapes=(shape,),
            target=target,
            shape=array.shape,
            dtype=array.dtype.name,
            operation="copy" if shape == array.shape else "i o -> o i",
        )
        for (name, shape), (target, array) in rows
    ]


def _settings(
    opened: OpenCheckpoint,
    to: str,
    tower: Tower | None,
    made: list[Output],
    destination: Path,
    pad: int | None,
    vocabulary: str | Path | None,
    name: str | None,
    exact: bool,
) -> dict[str, Any]:
    """What the files beside the weights need to know."""
    form = _format(to)
    if destination.suffix != (form.ending or destination.suffix):
        raise ValueError(f"{destination}: a file of format {to} must be named {form.ending}")
    if exact and not form.has_exact:
        which = " and ".join(key for key, other in FORMATS.items() if other.has_exact)
        raise ValueError(f"exact is for {which}: all that {to} holds can be moved")
    row, config, notes = opened.like, opened.config.only(tower), ()
    profile = _profile(opened, tower, pad) if to == siglip_folder.FORMAT.name else None
    images = _own_images(opened, tower)
    pad = opened.pad if pad is None else pad
    path = Path(vocabulary) if vocabulary is not None else opened.vocabulary
    if not form.vocabulary or config.text is None:
        path = None
    elif path is None:
        notes = ("no vocabulary was found, so that no tokenizer files were written",)
    if pad is None and form.needs_pad(opened.config, tower, path is not None):
        unsaid = "how its texts are padded"
        if tower == "image":
            unsaid = "whether it is a SigLIP or a SigLIP 2, whose images are resized differently"
        raise ModelError(
            f"{opened.path} does not say {unsaid}",
            needs="pad",
            advice="give pad 1 (as SigLIP does) or 0 (as SigLIP 2 does)",
        )
    text, own = None, False
    if path is not None:
        assert pad is not None  # every format that holds a vocabulary needs it with one
        known = released_vocabulary(config)
        text = custom_profile(config, pad, vocabulary=known.name if known else None).text
        Tokenizer(path, text)
        if form.steps is not None:
            text, own = _text_profile(opened, form, config, pad, path)
    if form.steps is None and profile is None and pad is not None and opened.text_settings:
        profile = opened.with_text_settings(custom_profile(config, pad))
    chosen = name or opened.given_name or (row.name if row else destination.name)
    notes += form.notes(opened.config, exact, own)
    return {
        "pad": pad,
        "profile": profile,
        "images": images.said if images is not None else None,
        "vocabulary": path,
        "text_profile": text,
        "name": chosen,
        "tokenizer_name": f"timm/{row.open_clip[0]}" if row and not own else chosen,
        "dtype": np.result_type(*(output.header.dtype for output in made)).name,
        "destination": destination,
        "exact": exact,
        "notes": notes,
    }


def _text_profile(
    opened: OpenCheckpoint,
    form: Format,
    config: Siglip,
    pad: int,
    vocabulary: Path,
) -> tuple[TextProfile, bool]:
    """What the ids of another system's tokenizer have to be, and whether that is the model's own.

    A model of one's own means what its profile says. Released weights, and what is built like
    them, keep the tokenizer of the released repositories, whose ids are those of the profile
    that is named for that system.
    """
    if opened.profile is not None and opened.checkpoint is None:
        return dataclasses.replace(opened.profile.text, pad=pad), True
    settings = opened.text_settings
    released = settings is None or (opened.checkpoint is not None and not settings.own)
    if released and hf_tokenizer.family(vocabulary) == hf_tokenizer.FAMILIES[pad]:
        return custom_profile(config, pad, form.profile).text, False
    return opened.with_text_settings(custom_profile(config, pad)).text, True


def _own_images(opened: OpenCheckpoint, tower: Tower | None) -> FolderImages | None:
    """How the source wants images prepared, where that is not as for the released weights."""
    images = opened.own_images if tower != "text" else None
    if images is None:
        return None
    # A model of one's own may have the released settings of one system and goes to another.
    ours = opened.profile is not None and opened.checkpoint is None
    return images if images.own or (ours and images.system != "big_vision") else None


def _profile(opened: OpenCheckpoint, tower: Tower | None, pad: int | None) -> Profile | None:
    """The profile of a folder of ours; None where that of the released weights will do."""
    if opened.profile is not None:
        profile = opened.profile
    elif (images := _own_images(opened, tower)) is not None and images.said is not None:
        known = opened if pad is None else dataclasses.replace(opened, pad=pad)
        profile = known.profile_named()
    else:
        return None
    if pad is None:
        return profile
    return dataclasses.replace(profile, text=dataclasses.replace(profile.text, pad=pad))


def _said(path: Path, to: str) -> ImageProfile | None:
    """What the files that were written say about preparing images."""
    if _format(to).config is None:
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
    head: "_Head | None",
) -> None:
    form = _format(to)
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
    head: "_Head | None",
) -> None:
    """Raises unless what was written is read back as what was read, configuration included."""
    config = config.only(tower)
    # big_vision's formats do not state everything; the others have to.
    with open_checkpoint(path, config=None if _format(to).config else config) as written:
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
