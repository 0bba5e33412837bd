"""Pairs from Parquet files."""

import bisect
import collections
import threading
from pathlib import Path
from typing import Any

from siglip_jax.data.pair import (
    Pair,
    choose_column,
    digest,
    names_and_sizes,
    read_image,
    refuse_missing,
    text_captions,
)
from siglip_jax.optional import from_extra

_IMAGE, _CAPTION = ("image",), ("caption", "captions", "text")
_CACHE_BYTES = 1 << 30


class ParquetPairs:
    """Pairs from Parquet files, a row each.

    Captions and keys are held in memory. Images are read a row group at a time, and
    the groups used last are kept, up to 1 GiB, so that smaller data are read once.
    Shuffled access to more than that reads a whole row group for nearly every picture:
    write large data in small row groups (some hundred pictures, as Hugging Face's
    `datasets` does), or as webdataset shards.

    Args:
      files: .parquet files with the same columns, in order.
      image: column of the images: bytes, the struct of bytes and path that Hugging
        Face writes, or strings, which are paths relative to the file's folder.
      caption: column of the captions: a string or a list of strings.
      source: what messages call the data.

    A column `key`, if there is one, names the pairs; without it file and row do.

    Raises:
      ValueError: if a file is no Parquet file, a column is missing (near names are
        offered) or of another type, or pictures have no caption.
    """

    def __init__(
        self, files: list[Path], image: str | None, caption: str | None, source: str
    ) -> None:
        arrow = from_extra("train", "pyarrow")
        self._files = files
        self._metadata: list[Any] = []
        self._groups: list[tuple[int, int]] = []  # file, and row group in it
        self._starts: list[int] = []  # index of each group's first row
        self._length = 0
        texts, keys = [], []
        for number, file in enumerate(files):
            with _opened(file) as opened:
                schema = opened.schema_arrow
                self._image = choose_column(file, schema.names, "image", image, _IMAGE)
                self._caption = choose_column(file, schema.names, "caption", caption, _CAPTION)
                check_types(file, schema, self._image, self._caption)
                texts += opened.read([self._caption]).column(0).chunks
                if "key" in schema.names:
                    keys += opened.read(["key"]).column(0).to_pylist()
                else:
                    keys += [f"{file.name}:{row}" for row in range(opened.metadata.num_rows)]
                self._metadata.append(opened.metadata)
                for group in range(opened.num_row_groups):
                    self._groups.append((number, group))
                    self._starts.append(self._length)
                    self._length += opened.metadata.row_group(group).num_rows
        if not self._length:
            raise ValueError(f"{source}: there are no rows in it")
        self._keys = arrow.array([str(key) for key in keys])
        self._texts = arrow.chunked_array(texts).combine_chunks()
        self._forget()
        bare = [self._key(i) for i in range(self._length) if not self.captions(i)]
        refuse_missing(source, "caption", bare, self._length)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Pair:
        key = self._key(index)
        group = bisect.bisect_right(self._starts, index) - 1
        value = self._images(group)[index - self._starts[group]].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            value = read_image(self._files[self._groups[group][0]].parent / value)
        if not value:
            raise ValueError(f"{key}: no image")
        return Pair(key, value, self.captions(index))

    def captions(self, index: int) -> tuple[str, ...]:
        return text_captions(self._texts[index].as_py())

    def identity(self) -> str:
        columns = [self._image, self._caption]
        return digest("parquet", names_and_sizes(self._files), columns, self._length)

    def _key(self, index: int) -> str:
        return self._keys[index].as_py()

    def _images(self, group: int) -> Any:
        """The images of one row group, from the cache or the file."""
        with self._lock:
            if group not in self._cache:
                number, part = self._groups[group]
                with _opened(self._files[number], self._metadata[number]) as opened:
                    column = opened.read_row_group(part, [self._image]).column(self._image)
                self._cache[group] = column
                held = sum(c.nbytes for c in self._cache.values())
                while held > _CACHE_BYTES and len(self._cache) > 1:
                    held -= self._cache.popitem(last=False)[1].nbytes
            self._cache.move_to_end(group)
            return self._cache[group]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[int, Any] = collections.OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _opened(file: Path, metadata: Any = None) -> Any:
    parquet = from_extra("train", "pyarrow.parquet")
    try:
        return parquet.ParquetFile(file, metadata=metadata)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ValueError(f"{file}: not a Parquet file that can be read: {reason}") from error


def check_types(file: object, schema: Any, image: str | None, text: str | None) -> None:
    """Refuses columns that hold no images, or no texts.

    Args:
      file: what messages call the file.
      schema: pyarrow's.
      image, text: columns of it; None for one that is not read.

    Raises:
      ValueError: says what the column holds, and what is expected.
    """
    # Whoever has a schema has pyarrow.
    from pyarrow import types

    def plain(kind: Any) -> Any:
        return kind.value_type if types.is_dictionary(kind) else kind

    def is_text(kind: Any) -> bool:
        kind = plain(kind)
        return types.is_string(kind) or types.is_large_string(kind)

    if image:
        kind = plain(schema.field(image).type)
        parts = {f.name for f in kind} if types.is_struct(kind) else set()
        binary = types.is_binary(kind) or types.is_large_binary(kind)
        if not (binary or is_text(kind) or parts & {"bytes", "path"}):
            raise ValueError(
                f"{file}: column {image} holds {kind}; expected the bytes of image files, "
                "a struct of bytes and path, or paths"
            )
    if text:
        kind = plain(schema.field(text).type)
        lists = types.is_list, types.is_large_list, types.is_fixed_size_list
        several = any(is_list(kind) for is_list in lists)
        if not is_text(kind.value_type if several else kind):
            raise ValueError(
                f"{file}: column {text} holds {kind}; expected a string or a list of strings"
            )
