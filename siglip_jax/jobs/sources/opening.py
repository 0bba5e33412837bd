"""From what a command names to a source."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from siglip_jax.data.item import Item, Shard, Source
from siglip_jax.data.pair import digest
from siglip_jax.jobs.sources.parquet import ParquetRows
from siglip_jax.jobs.sources.pictures import PictureFiles
from siglip_jax.jobs.sources.specs import expanded
from siglip_jax.jobs.sources.storage import Stored
from siglip_jax.jobs.sources.tables import TableRows
from siglip_jax.jobs.sources.tars import TarShards
from siglip_jax.jobs.sources.tfds import TfdsRecords


def open_source(
    specs: Sequence[str],
    *,
    image: str | None = None,
    text: str | None = None,
    key: str | None = None,
    only: Literal["images", "texts"] | None = None,
    shard_size: int = 4096,
) -> Source:
    """Opens what a job is to read.

    Each of `specs` is a path or URL (`gs://`, `s3://`, `hf://`, `https://` and what else
    fsspec has a package for), of:

    * a picture, a folder (searched to the bottom, sorted) or a pattern in quotes;
    * webdataset tars, .tar or compressed: a file, `shards-{0000..0007}.tar`, a pattern, a
      folder; members up to the first dot of the name are an item;
    * Parquet: the same; a row is an item, with images as bytes, as Hugging Face's struct or
      as paths relative to the file;
    * .csv, .tsv or .jsonl with a column of paths relative to the file, of texts, or both;
    * a .txt of one path a line, relative to the working folder, or - for standard input;
    * `texts:FILE`: a text a line;
    * `tfds:NAME` or `tfds:NAME:SPLIT` of TensorFlow Datasets.

    A shard is a tar, or up to `shard_size` pictures, rows or lines. Keys are paths below
    the folder (as given where there are several specs), tar/member, a column's value, or
    file:row from 0. Where a picture has several texts, its item has the first.

    Args:
      image: column or ending of the images, where not as usual (`image`, `jpg`, ...).
      text: column of the texts, in tars key in the .json, where not `caption`, `captions`
        or `text`.
      key: column of the keys, where not `key`.
      only: reads nothing but images, or nothing but texts, of which every one is an item
        then.
      shard_size: the most items of a shard.

    Raises:
      ValueError: one line: nothing is there, a package or a login is missing, a column is
        not there (near names are offered), or a file is damaged.
    """
    specs = [specs] if isinstance(specs, str) else list(specs)
    if not specs:
        raise ValueError("there is no input; name a folder, files, tars, .parquet or a table")
    if only not in (None, "images", "texts"):
        raise ValueError(f"only must be 'images', 'texts' or None, got {only!r}")
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")

    def open_kind(kind: str, files: list[Stored]) -> Source:
        if key and kind in ("pictures", "tars", "texts", "tfds"):
            raise ValueError(f"{specs[0]}: key= names a column, and {kind} have none")
        if kind == "pictures":
            if only == "texts":
                raise ValueError(f"{specs[0]}: pictures have no texts; texts:FILE is a text a line")
            return PictureFiles(files, shard_size)
        if kind == "tars":
            return TarShards(files, image, text, only)
        if kind == "parquet":
            return ParquetRows(files, image, text, key, only, shard_size)
        if kind == "tfds":
            return _joined([TfdsRecords(f.where, image, text, only, shard_size) for f in files])
        if kind == "texts" and only == "images":
            raise ValueError(f"{specs[0]}: texts have no pictures")
        return TableRows(files, image, text, key, only, shard_size, texts=kind == "texts")

    found = itertools.groupby(expanded(specs), lambda named: named.kind)
    source = _joined([open_kind(kind, [n.file for n in named]) for kind, named in found])
    source.origin = {"specs": specs, "image": image, "text": text, "key": key, "only": only}
    source.origin["shard_size"] = shard_size
    return source


class Joined:
    """Sources one after another; what each of them calls an item must be its own."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)
        self._places = [
            (number, shard)
            for number, source in enumerate(self._sources)
            for shard in range(len(source.shards()))
        ]

    def shards(self) -> list[Shard]:
        return [shard for source in self._sources for shard in source.shards()]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        number, own = self._places[shard]
        return self._sources[number].read(own, keys)

    def identity(self) -> str:
        return digest("joined", [source.identity() for source in self._sources])


def _joined(sources: Sequence[Source]) -> Source:
    return sources[0] if len(sources) == 1 else Joined(sources)
