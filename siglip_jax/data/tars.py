"""Webdataset tars: from front to back, compressed or not; at any place, uncompressed."""

import functools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from siglip_jax.data.columns import (
    IMAGE_ENDINGS,
    Wanted,
    captions_beside,
    refuse_missing,
    text_endings,
)
from siglip_jax.data.item import Dataset, Item, Pair, Shard, Unique, fingerprint, several_texts
from siglip_jax.data.storage import Stored, read_range
from siglip_jax.data.tar_stream import LARGEST, Damaged, Member, members


class TarShards(Dataset):
    """The samples of webdataset tars, a tar a shard.

    Members that follow each other and agree up to the first dot of the file name are an
    item: an image, a .txt or a .json with `caption`, `captions` or `text`. A tar that
    is cut off gives what is whole before that, and an error in place of the rest.

    As pairs, members need not follow each other. The headers and captions of all tars are
    read once and held in memory, and an image costs one read; a tar that is cut off, and
    samples that lack an image or a caption, are refused.

    Args:
      files: tars; gzip, bz2 and xz show in their first bytes.
      wanted: `image` is what follows the first dot in the names of the images (otherwise
        the first of jpg, jpeg, png, webp and others that there is), `text` a key in the
        .json.
    """

    def __init__(self, files: Sequence[Stored], wanted: Wanted) -> None:
        self._files, self._wanted = list(files), wanted
        given = (wanted.image.lower(),) if wanted.image else IMAGE_ENDINGS
        self._images = () if wanted.only == "texts" else given
        self._texts = text_endings(wanted)

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
        options = [self._wanted.image, self._wanted.text, self._wanted.only]
        return fingerprint("tars", files, options)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Pair:
        place = self._index[index]
        if not 0 < place.size <= LARGEST:
            raise ValueError(f"{place.key}: its image has {place.size:,} bytes")
        try:
            data = read_range(self._files[place.file].where, place.offset, place.size)
        except ValueError as error:
            raise ValueError(f"{place.key}: {error}") from error
        return Pair(place.key, data, place.captions)

    def key(self, index: int) -> str:
        return self._index[index].key

    def captions(self, index: int) -> tuple[str, ...]:
        return self._index[index].captions

    @functools.cached_property
    def _index(self) -> list["_Place"]:
        """Where the images lie; read from all headers, once."""
        with ThreadPoolExecutor(16 if len(self._files) > 1 else 1) as pool:
            return [
                place
                for places in pool.map(self._scan, range(len(self._files)))
                for place in places
            ]

    def _scan(self, number: int) -> list["_Place"]:
        file = self._files[number]
        images: dict[str, dict[str, Member]] = {}
        texts: dict[str, dict[str, bytes | None]] = {}
        try:
            for member in members(file.where, self._is_wanted, jump=True):
                stem, ending = _split(member.name)
                own, beside = images.setdefault(stem, {}), texts.setdefault(stem, {})
                if ending in own or ending in beside:
                    raise ValueError(f"{file.name}: {member.name} is in it twice")
                if ending in self._texts:
                    beside[ending] = member.read()
                else:
                    own[ending] = member
        except Damaged as damage:
            raise ValueError(f"{file.name}: {damage}") from damage
        places, faceless = [], []
        for stem, own in images.items():
            key = f"{file.name}/{stem}"
            image = next((own[e] for e in self._images if e in own), None)
            if image is None:
                faceless.append(key)
                continue
            try:
                captions = captions_beside(texts[stem], self._wanted.text)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
            places.append(_Place(key, number, image.offset, image.size, captions))
        refuse_missing(file.name, f"image ({self._expected()})", faceless, len(images))
        if not places:
            raise ValueError(f"{file.name}: there are no images ({self._expected()}) in it")
        return places

    def _items(self, file: Stored) -> Iterator[Item]:
        key = ""
        group: dict[str, bytes | None] = {}
        try:
            for member in members(file.where, self._is_wanted):
                stem, ending = _split(member.name)
                if stem != key or ending in group:
                    yield from self._item(file, key, group)
                    key, group = stem, {}
                group[ending] = member.read()
        except Damaged as damage:
            # The group of an image that is cut off is not given without it.
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
            texts = captions_beside(group, self._wanted.text) if self._texts else ()
        except ValueError as error:
            problem = str(error)
        if None in group.values():
            problem = f"a file of more than {LARGEST:,} bytes"
        elif image is None and not problem and not (self._texts and texts):
            problem = f"there is no {'image' if self._images else 'text'} ({self._expected()})"
        if problem:
            yield Item(name, error=f"{name}: {problem}")
        elif self._images:
            yield Item(name, image, texts[0] if texts else None)
        else:
            yield from several_texts(name, texts)

    def _is_wanted(self, name: str) -> bool:
        stem, ending = _split(name)
        return bool(stem) and ending in (*self._images, *self._texts)

    def _expected(self) -> str:
        return ", ".join(f".{ending}" for ending in (self._images or self._texts)[:4])


class _Place(NamedTuple):
    """Where the bytes of an image lie."""

    key: str
    file: int
    offset: int
    size: int
    captions: tuple[str, ...]


def _split(name: str) -> tuple[str, str]:
    """Key and ending: `a/b.left.PNG` is `a/b` and `left.png`."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return (folder + slash + stem if stem else ""), ending.lower()
