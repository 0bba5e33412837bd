"""What a format declares about itself; `formats.FORMATS` has all of them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from siglip_jax.classifier import Pooling
from siglip_jax.config import Pool, Siglip, Tower
from siglip_jax.weights.reader import Header

from .checkpoint import OpenCheckpoint
from .rules import Step
from .safetensors_file import SafetensorsWriter

Items = Iterator[tuple[str, np.ndarray]]


def _needs_no_pad(config: Siglip, tower: Tower | None, vocabulary: bool) -> bool:
    return False


def _no_exact_gelu(config: Siglip, pad: int | None) -> tuple[Tower, ...]:
    return ()


def _no_written_gelu(config: Siglip, exact: bool) -> tuple[Tower, ...]:
    return ()


def _no_notes(config: Siglip, exact: bool, own_tokenizer: bool) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """How checkpoints of one system lie in files.

    Attributes:
      name: what `convert` calls it.
      config: the file that states the architecture; None where nothing does but the shapes.
      weights: names or patterns of the files of weights, first the one its system would take.
      others: small files beside them that are read.
      towers: what it can hold; None is a whole model.
      pools: how an image tower may make one embedding of its patches.
      tensors: pattern of the first tensor names by which bare weights are known.
      classifier: the layer that its system puts on an image tower to tell classes apart, and
        what that layer is given; None where it has none.
      recognises: whether a folder is in this format.
      open: opens a path; takes `config`, `tower` and, where there is no configuration file,
        `res`, where there is one, `weights`.
      write_weights: writes tensors, given their names and headers.
      write_files: writes everything else into the folder.
      steps: from big_vision's tensors to its own; None if they are big_vision's.
      ending: of the name of its file, where it is one.
      vocabulary: whether a folder holds the vocabulary too.
      needs_pad: whether its files say how texts are padded: given the architecture, the only
        tower to be written, and whether a vocabulary is.
      exact_gelu: the towers in which its system's own configuration of a model like this one
        computes the exact GELU, given the architecture and the padding id.
      has_exact: whether `exact` asks for a form that computes all as big_vision does and cannot
        be moved.
      written_gelu: the towers in which its system computes the exact GELU with what is written,
        given the architecture and `exact`.
      notes: what to say of a folder, given the architecture, `exact`, and whether it holds a
        tokenizer that is no released one.
      profile: the system whose preprocessing its models have.
    """

    name: str
    config: str | None = None
    weights: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    towers: tuple[Tower | None, ...] = (None, "image", "text")
    pools: tuple[Pool, ...] = ("map", "gap", "none")
    tensors: str | None = None
    classifier: tuple[str, Pooling | None] | None = None
    recognises: Callable[[Path], bool]
    open: Callable[..., OpenCheckpoint]
    write_weights: Callable[[Path, Mapping[str, Header], Items], object]
    write_files: Callable[..., None] | None = None
    steps: Callable[[Siglip, Tower | None], list[Step]] | None = None
    ending: str = ""
    vocabulary: bool = False
    needs_pad: Callable[[Siglip, Tower | None, bool], bool] = _needs_no_pad
    exact_gelu: Callable[[Siglip, int | None], tuple[Tower, ...]] = _no_exact_gelu
    has_exact: bool = False
    written_gelu: Callable[[Siglip, bool], tuple[Tower, ...]] = _no_written_gelu
    notes: Callable[[Siglip, bool, bool], tuple[str, ...]] = _no_notes
    profile: Literal["transformers", "open_clip"] = "open_clip"


def safetensors_in(
    name: str, shard_bytes: int | None = None
) -> Callable[[Path, Mapping[str, Header], Items], None]:
    """A `write_weights` that makes the folder and writes a file `name`.

    In several files, with an index, beyond `shard_bytes`.
    """

    def write(path: Path, headers: Mapping[str, Header], items: Items) -> None:
        path.mkdir()
        limit = shard_bytes or sum(header.nbytes for header in headers.values())
        with SafetensorsWriter(path / name, headers, shard_bytes=limit) as writer:
            for key, array in items:
                writer.write(key, array)

    return write
