"""From what a command or a recipe names to a dataset, of any format, here or in a bucket."""

import bisect
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from siglip_jax.data.arrow import ArrowRows
from siglip_jax.data.columns import Only, Wanted, refuse_missing
from siglip_jax.data.failures import SettingError, public
from siglip_jax.data.images import ImageFiles
from siglip_jax.data.item import Dataset, Item, Pair, Pairs, Shard, Source, Valued, fingerprint
from siglip_jax.data.kept import WITH_COLUMNS, common_types, kept_names
from siglip_jax.data.parquet import ParquetRows
from siglip_jax.data.parquet_values import DamagedRowError
from siglip_jax.data.specs import expanded
from siglip_jax.data.storage import Stored
from siglip_jax.data.tables import TableRows
from siglip_jax.data.tars import TarShards
from siglip_jax.data.tfds import TfdsRecords

SHARD_SIZE = 4096


def open_items(
    specs: Sequence[str],
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    key_column: str | None = None,
    separator: str | None = None,
    keep: Sequence[str] = (),
    only: Only | None = None,
    shard_size: int = SHARD_SIZE,
) -> Source:
    """Opens images, texts or both, to be read from front to back in shards.

    Each of `specs` is a path or URL (`gs://`, `s3://`, `hf://`, `https://` and what else
    fsspec has a package for), of:

    * an image, a folder (searched to the bottom, sorted) or a pattern in quotes; texts are
      in a .txt of the same name, one a line, or in a .json with `caption`, `captions` or
      `text`; or the folder has a table called captions or metadata (.csv, .tsv, .jsonl);
    * webdataset tars, .tar or compressed: a file, `shards-{0000..0007}.tar`, a pattern, a
      folder; members up to the first dot of the name are an item, with the same endings;
    * Parquet: the same; a row is an item, with images as bytes, as Hugging Face's struct or
      as paths relative to the file;
    * .arrow files, or the folder that `datasets` writes with `save_to_disk`: the same, local;
    * .csv, .tsv or .jsonl with a column of paths relative to the file, of texts, or both;
      a row with more fields than the first line is an error, not cut;
    * a .txt of one path a line, relative to the working folder, or - for standard input;
    * `texts:FILE`: a text a line;
    * `tfds:NAME` or `tfds:NAME:SPLIT` of TensorFlow Datasets.

    A shard is a tar, or up to `shard_size` images, rows or lines. Keys are paths below
    the folder (as given where there are several specs), tar/member, a column's value, or
    file:row from 0. Where an image has several texts, its item has the first.

    Args:
      image_column: column or ending of the images, where not as usual (`image`, `jpg`, ...).
      text_column: column of the texts, beside images and in tars key in the .json, where not
        `caption`, `captions` or `text`.
      key_column: column of the keys, where not `key`.
      separator: between the fields of a .csv or .tsv; default: the comma, semicolon, tab or
        vertical bar that parts its first line into the most columns (of a .tsv the tab).
      keep: columns that items carry along as `Item.kept`, of a tar fields of the .json; with
        their types in Parquet and .arrow, elsewhere as strings (numbers and lists of JSON as
        its text).
      only: "images" or "texts" to read nothing else; of texts every one is an item then.
        "pairs" where a table must have both.
      shard_size: the most items of a shard.

    Raises:
      ValueError: one line: nothing is there, a package or a login is missing, a column is
        not there (near names are offered), or a file is damaged.

    >>> from pathlib import Path
    >>> import siglip_jax
    >>> images = Path(siglip_jax.__file__).parent / "emoji" / "pictures"
    >>> source = open_items([str(images)], only="images")
    >>> source.shards(), next(source.read(0)).key
    ([Shard(name='images 1 to 8', items=8)], '1f44d-1f3fc.webp')
    """
    specs = [specs] if isinstance(specs, str) else list(specs)
    if not specs:
        raise ValueError("there is no input; name a folder, files, tars, .parquet or a table")
    if only not in (None, "images", "texts", "pairs"):
        raise ValueError(f"only must be 'images', 'texts', 'pairs' or None, got {only!r}")
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    wanted = Wanted(
        image_column,
        text_column,
        key_column,
        only=None if only == "pairs" else only,
        separator=separator,
        both=only == "pairs",
        keep=kept_names(keep),
    )
    source = _opened(specs, wanted, shard_size)
    source.origin = {
        "specs": [public(spec) for spec in specs],
        **wanted._asdict(),
        "shard_size": shard_size,
        "folder": str(Path.cwd()),  # that local paths are relative to
    }
    return source


def open_pairs(
    spec: str,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    key_column: str | None = None,
    separator: str | None = None,
) -> Pairs:
    """Opens images with captions, to be read in any order.

    All that `open_items` opens, but for compressed tars and texts alone. Several rows of a
    table that name one image are captions of one pair. Captions and positions are read at
    once and held in memory (but for TensorFlow Datasets), images when asked for.

    Args:
      spec: one path, URL or name, as of `open_items`.
      image_column, text_column, key_column, separator: as of `open_items`.

    Raises:
      ValueError: if nothing is there, it is of no known format, a file cannot be opened, or
        an image has no caption.
    """
    wanted = Wanted(image_column, text_column, key_column, "pairs", separator)
    pairs = _opened([spec], wanted, SHARD_SIZE)
    count = len(pairs)
    if not spec.startswith("tfds:"):
        bare = [pairs.key(index) for index in range(count) if _has_none(pairs, index)]
        refuse_missing(public(spec), "caption", bare, count)
    return pairs


def _has_none(pairs: Pairs, index: int) -> bool:
    """Whether there is no caption; one that cannot be read is known when it is asked for."""
    try:
        return not pairs.captions(index)
    except DamagedRowError:
        return False


def _opened(specs: Sequence[str], wanted: Wanted, shard_size: int) -> Dataset:
    if wanted.separator is not None and len(wanted.separator) != 1:
        raise ValueError(f"separator must be one character, got {wanted.separator!r}")

    def open_kind(kind: str, files: list[Stored]) -> Dataset:
        if wanted.key and kind in ("images", "tars", "texts", "tfds"):
            problem = f"{public(specs[0])}: {kind} have no column of keys"
            raise SettingError(problem, "key_column", "leave out {}")
        if wanted.image and kind in ("images", "texts"):
            problem = f"{public(specs[0])}: {kind} have no column of images"
            raise SettingError(problem, "image_column", "leave out {}")
        if wanted.keep and kind in ("images", "texts"):
            problem = f"{public(specs[0])}: {kind} have no columns, which {WITH_COLUMNS} have"
            raise SettingError(problem, "keep", "leave out {}")
        if wanted.separator and kind != "tables":
            problem = f"{public(specs[0])}: {kind} have no fields to separate"
            raise SettingError(problem, "separator", "leave out {}")
        if kind == "images":
            if wanted.only == "texts":
                raise ValueError(
                    f"{public(specs[0])}: images have no texts; texts:FILE is a text a line"
                )
            return ImageFiles(files, wanted, shard_size)
        if kind == "tars":
            return TarShards(files, wanted)
        if kind == "parquet":
            return ParquetRows(files, wanted, shard_size)
        if kind == "arrow":
            return ArrowRows(files, wanted, shard_size)
        if kind == "tfds":
            return _joined([TfdsRecords(f.where, wanted, shard_size) for f in files])
        if kind == "texts" and wanted.only in ("images", "pairs"):
            raise ValueError(f"{public(specs[0])}: texts have no images")
        return TableRows(files, wanted, shard_size, plain=kind == "texts")

    captioned = wanted.only in ("pairs", None)
    found = itertools.groupby(expanded(specs, captioned=captioned), lambda named: named.kind)
    return _joined([open_kind(kind, [n.file for n in named]) for kind, named in found])


class Joined(Dataset):
    """Datasets one after another; what each of them calls an item must be its own."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = list(parts)
        self._places = [
            (number, shard)
            for number, part in enumerate(self._parts)
            for shard in range(len(part.shards()))
        ]

    def shards(self) -> list[Shard]:
        return [shard for part in self._parts for shard in part.shards()]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        number, own = self._places[shard]
        return self._parts[number].read(own, keys)

    def stamp(self, shard: int) -> str | None:
        number, own = self._places[shard]
        return self._parts[number].stamp(own)

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        number, own = self._places[shard]
        return self._parts[number].stamps(own)

    def values(self, name: str) -> Iterator[tuple[str, Any]]:
        for part in self._parts:
            if not isinstance(part, Valued):
                raise ValueError(f"{part.shards()[0].name}: there is no {name} beside these images")
            yield from part.values(name)

    def kept(self) -> dict[str, Any]:
        return common_types((part.shards()[0].name, part.kept()) for part in self._parts)

    def contents(self) -> str:
        return fingerprint("joined", [part.contents() for part in self._parts])

    def identity(self) -> str:
        return fingerprint("joined", [part.identity() for part in self._parts])

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, index: int) -> Pair:
        part, own = self._own(index)
        return part[own]

    def key(self, index: int) -> str:
        part, own = self._own(index)
        return part.key(own)

    def captions(self, index: int) -> tuple[str, ...]:
        part, own = self._own(index)
        return part.captions(own)

    def _own(self, index: int) -> tuple[Pairs, int]:
        """The part that an index is in, and the index there."""
        starts = list(itertools.accumulate(map(len, self._parts), initial=0))
        number = bisect.bisect_right(starts, index) - 1
        if not 0 <= index < starts[-1]:
            raise IndexError(index)
        return self._parts[number], index - starts[number]


def _joined(parts: Sequence[Dataset]) -> Dataset:
    return parts[0] if len(parts) == 1 else Joined(parts)
