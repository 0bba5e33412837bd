"""What embed jobs have written, as one long matrix that is never read whole."""

import bisect
import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from siglip_jax.config import layer_name
from siglip_jax.jobs.bucket import BucketPath, Place, folder_at, opened
from siglip_jax.jobs.finished import finished_entries
from siglip_jax.jobs.ledger import Entry
from siglip_jax.jobs.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    import pyarrow as pa

_SPACE = ("weights", "architecture", "profile", "width")
_BATCH = 4096  # rows of a Parquet file that are decoded at a time


class Row(NamedTuple):
    """Whose embedding a row is.

    Attributes:
      key: the item's, unique in its folder.
      text: of a text.
      folder: number of the folder it is from.
      shard: of the job, which is also that of its source.
    """

    key: str
    text: str | None
    folder: int
    shard: int


class _File(NamedTuple):
    folder: int
    shard: int
    path: Place  # of the embeddings
    names: Place  # of the keys
    rows: int
    digest: str  # of the embeddings


class Embeddings:
    """Rows of finished embed jobs, in the order of folders, shards and items.

    Attributes:
      folders, manifests: where they are, and what the jobs were.
      what: "images" or "texts".
      width: numbers in a row.
      dtype: of the stored numbers; of several folders the wider one.

    See `search` for an example.
    """

    def __init__(self, folders: list[Place], manifests: list[Manifest], files: list[_File]) -> None:
        self.folders, self.manifests = folders, manifests
        self.what: str = manifests[0].job["what"]
        self.width: int = manifests[0].space["width"]
        self.dtype = np.result_type(*(manifest.job["store"] for manifest in manifests))
        self._files = files
        self._starts = [0, *itertools.accumulate(file.rows for file in files)]

    def __len__(self) -> int:
        """Rows, those of items that could not be read included."""
        return self._starts[-1]

    def chunks(self, size: int, first: int = 0) -> Iterator[np.ndarray]:
        """Arrays (size, width), the last one smaller, as stored; NaN where an item is in error.

        Those before `first` are left out, and their files are not read.
        """
        held: list[np.ndarray] = []
        count = 0
        for part in self._from(first):
            while len(part):
                held.append(part[: size - count])
                count += len(held[-1])
                part = part[len(held[-1]) :]
                if count == size:
                    yield _together(held)
                    held, count = [], 0
        if held:
            yield _together(held)

    def rows(self, places: Sequence[int]) -> list[Row]:
        """Whose the rows at `places` are; only their files are opened."""
        found: dict[int, Row] = {}
        texts = self.what == "texts"
        for file, start, own in self._by_file(places):
            names = _names(file.names, [place - start for place in own], texts)
            for place, (key, text) in zip(own, names, strict=True):
                found[place] = Row(key, text, file.folder, file.shard)
        return [found[place] for place in places]

    def kept(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """What the jobs kept of their sources with the rows at `places`, by columns."""
        import pyarrow.parquet

        found: dict[int, dict[str, Any]] = {place: {} for place in places}
        for file, start, own in self._by_file(places):
            names = list(self.manifests[file.folder].job.get("keep", {}))
            if not names:
                continue
            with opened(file.names) as there, pyarrow.parquet.ParquetFile(there) as parquet:
                table = parquet.read(names)
            for place in own:
                found[place] = {name: _value(table[name][place - start]) for name in names}
        return [found[place] for place in places]

    def vectors(self, places: Sequence[int]) -> np.ndarray:
        """Embeddings (m, width) at `places`, as stored; only their files are read."""
        found: Any = np.empty((len(places), self.width), self.dtype)
        index = np.asarray(places, np.int64)
        for file, start, own in self._by_file(places):
            first, wanted = start, set(own)
            for part in self._parts(file):
                if not wanted.isdisjoint(range(first, first + len(part))):
                    here = (first <= index) & (index < first + len(part))
                    found[here] = part[index[here] - first]
                first += len(part)
        return found

    def schemas(self) -> "list[pa.Schema]":
        """Columns of the files that the keys are in, one schema of each folder.

        They are called as in the Parquet layout: `key`, and `text` of texts.
        """
        import pyarrow.parquet

        first = {file.folder: file.names for file in reversed(self._files)}
        found = []
        for folder in sorted(first):
            with opened(first[folder]) as file:
                schema, ours = pyarrow.parquet.read_schema(file), self._ours(folder)
            found.append(pyarrow.schema([f.with_name(ours.get(f.name, f.name)) for f in schema]))
        return found

    def tables(self) -> "Iterator[tuple[np.ndarray, pa.Table]]":
        """Embeddings (m, width) as stored, some rows at a time, each with the other columns.

        These are called as `schemas` has them.
        """
        import pyarrow.parquet

        for file in self._files:
            with opened(file.names) as names, pyarrow.parquet.ParquetFile(names) as parquet:
                there = parquet.schema_arrow.names
                table = parquet.read([name for name in there if name != "embedding"])
            ours = self._ours(file.folder)
            table = table.rename_columns([ours.get(name, name) for name in table.column_names])
            first = 0
            for part in self._parts(file):
                yield part, table.slice(first, len(part))
                first += len(part)

    def _ours(self, folder: int) -> dict[str, str]:
        """What the layout of clip-retrieval calls otherwise; what is kept may be called so too."""
        if self.manifests[folder].job["format"] != "npy":
            return {}
        return {"image_path": "key"} | ({"caption": "text"} if self.what == "texts" else {})

    def _by_file(self, places: Sequence[int]) -> Iterator[tuple[_File, int, list[int]]]:
        """Files, each with its first row and those of `places` that are in it."""
        by_file: dict[int, list[int]] = {}
        for place in places:
            if not 0 <= place < len(self):
                raise ValueError(f"there is no row {place}; there are {len(self):,}")
            by_file.setdefault(bisect.bisect_right(self._starts, place) - 1, []).append(place)
        for number, own in by_file.items():
            yield self._files[number], self._starts[number], own

    def _from(self, first: int) -> Iterator[np.ndarray]:
        """The embeddings from a place on, some rows at a time."""
        number = bisect.bisect_right(self._starts, first) - 1
        for place, file in zip(self._starts[number:-1], self._files[number:], strict=True):
            for part in self._parts(file):
                yield part[max(first - place, 0) :]
                place += len(part)

    def _parts(self, file: _File) -> Iterator[np.ndarray]:
        """A file's embeddings, some rows at a time."""
        held = _held(file) if isinstance(file.path, BucketPath) else file.path
        if file.path.suffix == ".npy":
            # Mapped, so that only what is used is read.
            mapped = np.load(held, mmap_mode="r" if isinstance(held, Path) else None)
            for start in range(0, file.rows, _BATCH):
                yield mapped[start : start + _BATCH]
            return
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(held) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=["embedding"], use_threads=False):
                column = batch.column(0)
                # By DLPack: pyarrow's own conversions import pandas, which takes half a second.
                flat = np.from_dlpack(column.flatten()).reshape(-1, self.width)
                if not column.null_count:
                    yield flat
                    continue
                whole = np.full((len(column), self.width), np.nan, flat.dtype)
                whole[column.is_valid().to_pylist()] = flat
                yield whole


def open_embeddings(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, unfinished: bool = False
) -> Embeddings:
    """Opens the output of one embed job, or of several of the same model.

    Args:
      folders: which `siglip_jax.jobs.embed` wrote, in either format; URLs of those in buckets.
      unfinished: take the shards that are done, of a job that is not.

    Raises:
      ValueError: one line: it is no output of an embed job, an unfinished one, files of it
        are missing, or the embeddings are of different spaces, which must not be compared.

    See `search` for an example.
    """
    single = isinstance(folders, str | os.PathLike)
    paths = [folder_at(folder) for folder in ([folders] if single else folders)]
    if not paths:
        raise ValueError("there is no folder of embeddings to open")
    manifests = [read_manifest(path) for path in paths]
    files: list[_File] = []
    for number, (path, manifest) in enumerate(zip(paths, manifests, strict=True)):
        if manifest.job["kind"] != "embed":
            raise ValueError(f"{path} holds scores, not embeddings; run siglip-jax embed")
        if path.resolve() in {other.resolve() for other in paths[:number]}:
            raise ValueError(f"{path} is named twice")
        if "layer" in manifest.job:
            raise ValueError(
                f"{path} holds patches ({layer_name(manifest.job['layer'])}), not embeddings; "
                "run siglip-jax embed without --features"
            )
        _refuse_other_space(paths[0], manifests[0], path, manifest)
        entries = finished_entries(path, manifest, unfinished=unfinished)
        files += [_file(number, path, manifest, entry) for entry in entries]
    return Embeddings(paths, manifests, files)


def _refuse_other_space(first: Place, ours: Manifest, other: Place, theirs: Manifest) -> None:
    names = [name for name in _SPACE if ours.space[name] != theirs.space[name]]
    if names:
        values = (f"{m.model} with profile {m.space['profile']['name']}" for m in (ours, theirs))
        raise ValueError(
            f"{first} and {other} hold embeddings of different spaces, which cannot be compared: "
            f"{' and '.join(values)} ({', '.join(names)} differ{'s' * (len(names) == 1)})"
        )
    if ours.job["what"] != theirs.job["what"]:
        raise ValueError(
            f"{first} holds {ours.job['what']} and {other} {theirs.job['what']}; "
            "search them one after the other"
        )


def _file(number: int, folder: Place, manifest: Manifest, entry: Entry) -> _File:
    paths, digest = [folder / file["path"] for file in entry.files], entry.files[0]["sha256"]
    if manifest.job["format"] == "npy":
        return _File(number, entry.shard, paths[0], paths[1], entry.rows - entry.errors, digest)
    return _File(number, entry.shard, paths[0], paths[0], entry.rows, digest)


def _held(file: _File) -> io.BytesIO:
    """A file of a bucket, which is checked as it comes.

    Raises:
      ValueError: one line, if it is not there or not what the job wrote.
    """
    assert isinstance(file.path, BucketPath)
    advice = "siglip-jax check says what else is, and how to mend it"
    try:
        data = file.path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file.path} is missing; {advice}") from None
    if hashlib.sha256(data).hexdigest() != file.digest:
        raise ValueError(f"{file.path} has other contents than the job wrote; {advice}")
    return io.BytesIO(data)


def _names(path: Place, offsets: Sequence[int], texts: bool) -> list[tuple[str, str | None]]:
    """Keys of some rows of a file, and their texts where these are embedded."""
    import pyarrow.parquet

    with opened(path) as file, pyarrow.parquet.ParquetFile(file) as parquet:
        there = parquet.schema_arrow.names
        key = next(name for name in ("key", "image_path") if name in there)
        # Of images, either may be a column that was kept.
        text = next((name for name in ("text", "caption") if texts and name in there), None)
        table = parquet.read([name for name in (key, text) if name])
    # One by one, for pyarrow's take imports pandas too.
    keys, words = table.column(key), table.column(text) if text else None
    return [(keys[n].as_py(), None if words is None else words[n].as_py()) for n in offsets]


def _value(scalar: Any) -> Any:
    """Of a column of any type, as Python has it."""
    try:
        return scalar.as_py()
    except ValueError:  # nanoseconds, which only pandas has
        return scalar.cast("string").as_py()


def _together(parts: list[np.ndarray]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
