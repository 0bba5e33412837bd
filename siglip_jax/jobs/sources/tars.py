"""Webdataset tars, read from front to back, from any place and compressed or not."""

import json
from collections.abc import Collection, Iterator, Sequence

from siglip_jax.data.item import Item, Shard
from siglip_jax.data.pair import digest, text_captions
from siglip_jax.jobs.sources.named import TEXT_COLUMNS, Unique, several_texts
from siglip_jax.jobs.sources.storage import Stored
from siglip_jax.jobs.sources.tar_stream import LARGEST, Damaged, members

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "jpe", "jfif")


class TarShards:
    """The samples of webdataset tars, a tar a shard.

    Members that follow each other and agree up to the first dot of the file name are an
    item: a picture, a .txt or a .json with `caption`, `captions` or `text`. A tar that
    is cut off gives what is whole before that, and an error in place of the rest.

    Args:
      files: tars; gzip, bz2 and xz show in their first bytes.
      image: what follows the first dot in the names of the images; otherwise the first
        of jpg, jpeg, png, webp and others that there is.
      text: key in the .json that holds the text.
      only: "images" or "texts".
    """

    def __init__(
        self, files: Sequence[Stored], image: str | None, text: str | None, only: str | None
    ) -> None:
        self._files, self._options = list(files), [image, text, only]
        self._images = () if only == "texts" else (image.lower(),) if image else _IMAGES
        self._texts = () if only == "images" else ("json",) if text else ("txt", "json")

    def shards(self) -> list[Shard]:
        return [Shard(file.name) for file in self._files]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        unique = Unique()
        for item in self._items(self._files[shard]):
            item = item._replace(key=unique(item.key))
            if keys is None or item.key in keys:
                yield item

    def identity(self) -> str:
        files = [(f.name, f.size, f.stamp) for f in self._files]
        return digest("tars", files, self._options)

    def _items(self, file: Stored) -> Iterator[Item]:
        key = ""
        group: dict[str, bytes | None] = {}
        try:
            for name, content in members(file.where, self._wanted):
                stem, ending = _split(name)
                if stem != key:
                    yield from self._item(file, key, group)
                    key, group = stem, {}
                group[ending] = content
        except Damaged as damage:
            # The group of a picture that is cut off is not given without it.
            inside = damage.inside and _split(damage.inside)[0]
            if inside != key:
                yield from self._item(file, key, group)
            where = f"{file.name}/{inside}" if inside else f"{file.name}:end"
            yield Item(where, error=f"{file.name}: {damage}")
        else:
            yield from self._item(file, key, group)

    def _item(self, file: Stored, key: str, group: dict[str, bytes | None]) -> Iterator[Item]:
        """What the members of one key make; nothing if they are of no interest."""
        if not group:
            return
        name = f"{file.name}/{key}"
        image = next((group[e] for e in self._images if group.get(e)), None)
        texts, problem = (), None
        try:
            texts = self._captions(group)
        except ValueError as error:
            problem = f"its text cannot be read: {error}"
        if None in group.values():
            problem = f"a file of more than {LARGEST:,} bytes"
        elif image is None and not problem and not (self._texts and texts):
            what = "image" if self._images else "text"
            problem = f"there is no {what} ({', '.join(f'.{e}' for e in self._expected())})"
        if problem:
            yield Item(name, error=f"{name}: {problem}")
        elif self._images:
            yield Item(name, image, texts[0] if texts else None)
        else:
            yield from several_texts(name, texts)

    def _wanted(self, name: str) -> bool:
        stem, ending = _split(name)
        return bool(stem) and ending in (*self._images, *self._texts)

    def _expected(self) -> Sequence[str]:
        return (self._images or self._texts)[:4]

    def _captions(self, group: dict[str, bytes | None]) -> tuple[str, ...]:
        if "txt" in group and "txt" in self._texts:
            return text_captions((group["txt"] or b"").decode().splitlines())
        content = json.loads(group.get("json") or b"{}")
        if not isinstance(content, dict):
            raise ValueError(f"the .json must hold an object, got {type(content).__name__}")
        names = [self._options[1]] if self._options[1] else TEXT_COLUMNS
        return next((t for n in names if (t := text_captions(content.get(n)))), ())


def _split(name: str) -> tuple[str, str]:
    """Key and ending: `a/b.left.PNG` is `a/b` and `left.png`."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return (folder + slash + stem if stem else ""), ending.lower()
