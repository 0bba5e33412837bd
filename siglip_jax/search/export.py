"""Embeddings as other programs read them: FAISS, USearch, NumPy, LanceDB."""

from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.jobs.bucket import BucketPath, Place
from siglip_jax.messages import choose, optional_package
from siglip_jax.search.embeddings import Embeddings
from siglip_jax.search.lance import refuse_other_folder, write_lance
from siglip_jax.weights.staging import staged

FORMATS = ("faiss", "usearch", "npy", "lance")
_CHUNK = 16384


def export(embeddings: Embeddings, form: str, path: Place) -> int:
    """Writes the rows without error, and beside them FILE.keys.txt with their keys in order.

    Args:
      form: "faiss" (IndexFlatIP), "usearch" (inner product, float32), "npy" (n, d), or "lance":
        a folder, or a prefix of a bucket, which has the keys and all other columns itself, those
        that were kept of the source too (`search.lance`).
      path: the file to write; replaced as a whole. A folder only if it holds such a table and
        nothing else.

    The number of a row in the file is that of its line in the keys. Returns how many.

    Raises:
      ValueError: if the format is unknown, its package missing, a key has a line break, or
        something else is in the folder.
    """
    choose("form", form, FORMATS)
    if form == "lance":
        refuse_other_folder(path)
        if isinstance(path, BucketPath):
            return write_lance(embeddings, path)
        with staged(path) as temporary:
            return write_lance(embeddings, temporary)
    if isinstance(path, BucketPath):
        raise ValueError(f"{path}: {form} is written to a disk, and lance to a bucket, too")
    writer = {"faiss": _faiss, "usearch": _usearch, "npy": _npy}[form]
    names = path.with_name(f"{path.name}.keys.txt")
    with (
        staged(path) as temporary,
        staged(names) as keys,
        keys.open("w", encoding="utf-8") as lines,
    ):
        return writer(_Rows(embeddings, lines), temporary)


class _Rows:
    """The rows without error, some at a time; each time their keys are written too."""

    def __init__(self, embeddings: Embeddings, lines: Any) -> None:
        self.width, self._embeddings, self._lines = embeddings.width, embeddings, lines

    def __iter__(self) -> Any:
        start = 0
        for chunk in self._embeddings.chunks(_CHUNK):
            good = np.flatnonzero(~np.isnan(chunk[:, 0]))
            for row in self._embeddings.rows((start + good).tolist()):
                if "\n" in row.key or "\r" in row.key:
                    raise ValueError(f"the key {row.key!r} has a line break; it cannot be exported")
                self._lines.write(f"{row.key}\n")
            start += len(chunk)
            yield np.ascontiguousarray(chunk[good], np.float32)


def _faiss(rows: _Rows, path: Path) -> int:
    faiss = optional_package("faiss", "faiss-cpu", name="faiss-cpu")
    index = faiss.IndexFlatIP(rows.width)
    for part in rows:
        index.add(part)
    faiss.write_index(index, str(path))
    return index.ntotal


def _usearch(rows: _Rows, path: Path) -> int:
    optional_package("usearch", "usearch")
    from usearch.index import Index

    index = Index(ndim=rows.width, metric="ip", dtype="f32")
    count = 0
    for part in rows:
        index.add(np.arange(count, count + len(part), dtype=np.uint64), part)
        count += len(part)
    index.save(str(path))
    return count


def _npy(rows: _Rows, path: Path) -> int:
    """Written as it comes; the header, of a fixed length, when the number of rows is known."""
    count = 0
    with path.open("wb") as file:
        header = _header(0, rows.width)
        file.write(header)
        for part in rows:
            file.write(part.data)
            count += len(part)
        file.seek(0)
        file.write(_header(count, rows.width))
    return count


def _header(rows: int, width: int) -> bytes:
    text = repr({"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
