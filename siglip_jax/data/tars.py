"""Webdataset tars: from front to back, compressed or not; at any place, uncompressed."""

import functools
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

from siglip_jax.data.columns import (
    IMAGE_ENDINGS,
    Wanted,
    captions_beside,
    refuse_missing,
    text_endings,
)
from siglip_jax.data.item import Dataset, Item, Pair, Shard, Unique, fingerprint, several_texts
from siglip_jax.data.kept import fields_of, text_types, texts_of
from siglip_jax.data.stamps import contents_of, file_stamp
from siglip_jax.data.storage import Stored, read_range
from siglip_jax.data.tar_fields import FIELDS, refuse_no_such_fields
from siglip_jax.data.tar_stream import LARGEST, Damaged, Member, members
from siglip_jax.preprocessing.signatures import image_format

_MOST = 256  # members of one key that are held


class TarShards(Dataset):
    """The samples of webdataset tars, a tar a shard.

    Members that follow each other and agree up to the first dot of the file name are an
    item: an image, a .txt or a .json with `caption`, `captions` or `text`. Without an image of
    a usual name, each of `a.left.png` and `a.right.png` is an item; without any, what begins
    as an image does. Members that make no item are an error with their key; hidden ones
    (`._a.jpg`) are passed over. A tar that is cut off gives what is whole before that, and an
    error in place of the rest.

    As pairs, members need not follow each other. The headers and captions of all tars are
    read once and held in memory, and an image costs one read; a tar that is cut off, and
    samples that lack an image or a caption, are refused.

    Args:
      files: tars; gzip, bz2 and xz show in their first bytes.
      wanted: `image` is what follows the first dot in the names of the images (otherwise
        the first of jpg, jpeg, png, webp and others that there is), `text` a key in the
        .json, `keep` others there, which are looked for in the first samples.

    Raises:
      SettingError: if there is no field that is to be kept.
    """

    def __init__(self, files: Sequence[Stored], wanted: Wanted) -> None:
        self._files, self._wanted = list(files), wanted
        given = (wanted.image.lower(),) if wanted.image else IMAGE_ENDINGS
        self._images = () if wanted.only == "texts" else given
        self._texts = text_endings(wanted)
        # What is read of a sample, beside its image.
        self._beside = self._texts
        if wanted.keep:
            self._beside = (*self._texts, *({FIELDS} - {*self._texts}))
            refuse_no_such_fields(self._files, wanted.keep)

    def shards(self) -> list[Shard]:
        return [Shard(file.name) for file in self._files]

    def read(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Item]:
        unique = Unique()
        for item in self._items(self._files[shard]):
            item = item._replace(key=unique(item.key))
            if keys is None or item.key in keys:
                yield item

    def stamp(self, shard: int) -> str:
        return file_stamp(self._files[shard])

    def stamps(self, shard: int) -> Iterator[tuple[str, str | None]]:
        raise NotImplementedError  # a tar has one

    def kept(self) -> dict[str, Any]:
        return text_types(self._wanted.keep)

    def contents(self) -> str:
        return contents_of([file.where for file in self._files])

    def identity(self) -> str:
        files = [(f.name, f.size, f.stamp) for f in self._files]
        options = [self._wanted.image, self._wanted.text, self._wanted.only]
        return fingerprint("tars", files, options)

    def values(self, name: str) -> Iterator[tuple[str, bytes | None]]:
        """Of every item its key and the content of its member `.name`; None where it has none.

        Only headers and these members are read.

        Raises:
          ValueError: if a tar is compressed, cut off or damaged.
        """
        for file in self._files:
            unique = Unique()
            for stem, group, value in _groups(file, name):
                for sample in self._samples(stem, group):
                    yield unique(f"{file.name}/{sample.key}"), value

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
        groups: dict[str, dict[str, Member]] = {}
        texts: dict[str, dict[str, bytes | None]] = {}
        try:
            for member in members(file.where, jump=True):
                stem, ending = _split(member.name)
                if not stem:  # a hidden file
                    continue
                group = groups.setdefault(stem, {})
                if ending in group and self._is_of_use(ending):
                    raise ValueError(f"{file.name}: {member.name} is in it twice")
                group[ending] = member
                if _last(ending) in self._texts and not member.link:
                    texts.setdefault(stem, {})[ending] = member.read()
        except Damaged as damage:
            raise ValueError(f"{file.name}: {damage}") from damage
        useless = [stem for stem, group in groups.items() if not any(map(self._is_of_use, group))]
        if useless and len(useless) < len(groups):
            first = f"{useless[0]}.{next(iter(groups[useless[0]]))}"
            warnings.warn(
                f"{file.name}: {len(useless):,} of {len(groups):,} samples are left out, since "
                f"they have neither image nor text; the first is {first.rstrip('.')}",
                stacklevel=2,
            )
        places, faceless = [], []
        samples = [
            (stem, sample)
            for stem, group in groups.items()
            if any(map(self._is_of_use, group))
            for sample in self._samples(stem, group)
        ]
        for stem, sample in samples:
            key = f"{file.name}/{sample.key}"
            image = groups[stem].get(sample.image or "")
            if image is None or image.link:
                faceless.append(key)
                continue
            linked = [own for own in sample.texts.values() if groups[stem][own].link]
            if linked:
                name = groups[stem][linked[0]].name
                raise ValueError(f"{key}: {name} is a link; write the text itself into the tar")
            beside = {name: texts[stem][own] for name, own in sample.texts.items()}
            try:
                captions = captions_beside(beside, self._wanted.text)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
            places.append(_Place(key, number, image.offset, image.size, captions))
        refuse_missing(file.name, f"image ({self._expected()})", faceless, len(samples))
        if not places:
            raise ValueError(f"{file.name}: there are no images ({self._expected()}) in it")
        return places

    def _items(self, file: Stored) -> Iterator[Item]:
        key, group = "", dict[str, Member | bytes | None]()
        try:
            for member in members(file.where):
                stem, ending = _split(member.name)
                if not stem:  # a hidden file
                    continue
                if stem != key or ending in group or len(group) == _MOST:
                    yield from self._group(file, key, group)
                    key, group = stem, {}
                group[ending] = member if member.link else self._content(member, ending, group)
        except Damaged as damage:
            # The group of an image that is cut off is not given without it.
            inside = damage.inside and _split(damage.inside)[0]
            if inside != key:
                yield from self._group(file, key, group)
            where = f"{file.name}/{inside}" if inside else f"{file.name}:end"
            yield Item(where, error=f"{file.name}: {damage}")
        else:
            yield from self._group(file, key, group)

    def _content(self, member: Member, ending: str, group: Collection[str]) -> bytes | None:
        """What is in a member that an item may be made of; b"" otherwise."""
        if ending in (*self._images, *self._beside):
            return member.read()
        # An image of another name is of use only where there is none of a usual one.
        if any(image in group for image in self._images):
            return b""
        if self._is_of_use(ending):
            return member.read()
        return member.read(image_format) if self._images and not self._wanted.image else b""

    def _group(
        self, file: Stored, key: str, group: Mapping[str, "Member | bytes | None"]
    ) -> Iterator[Item]:
        """What the members of one key make."""
        if group:
            for sample in self._samples(key, group):
                yield from self._item(f"{file.name}/{sample.key}", sample, group)

    def _item(
        self, name: str, sample: "_Sample", group: Mapping[str, "Member | bytes | None"]
    ) -> Iterator[Item]:
        fields = [sample.texts.get(FIELDS, FIELDS)] if self._wanted.keep else []
        endings = (sample.image or "", *sample.texts.values(), *fields)
        used = [group[ending] for ending in endings if ending in group]
        link = next((member.name for member in used if isinstance(member, Member)), None)
        image = group.get(sample.image or "")
        texts, kept, problem = (), None, None
        if link:
            problem = f"{link} is a link, which a tar that is read from front to back cannot follow"
        elif None in used:
            problem = f"a file of more than {LARGEST:,} bytes"
        else:
            beside = {e: group[own] for e, own in sample.texts.items() if e in self._texts}
            try:
                texts = captions_beside(cast(Any, beside), self._wanted.text)
                for own in fields:
                    kept = texts_of(fields_of(cast(Any, group.get(own))), self._wanted.keep)
            except ValueError as error:
                problem = str(error)
        if not image and not problem and not (self._texts and texts):
            what = "image" if self._images else "text"
            there = [f".{ending}" if ending else "a name without ending" for ending in group]
            more = ", ..." if len(there) > 4 else ""
            problem = f"there is no {what} ({self._expected()}), but {', '.join(there[:4])}{more}"
        if problem:
            yield Item(name, error=f"{name}: {problem}", kept=kept)
        elif self._images:
            yield Item(name, cast(bytes, image) or None, texts[0] if texts else None, kept=kept)
        else:
            yield from several_texts(name, texts, kept)

    def _samples(self, stem: str, group: Mapping[str, Any]) -> list["_Sample"]:
        """The items of one key: one, or as many as there are images with more dots.

        A key may have one image of a usual name. Where it has none, `IMG.2021.06.01.jpg` and
        `a.left.png` are images of keys of their own, up to the last dot.
        """
        beside = {text: text for text in self._beside if text in group}
        image = next((ending for ending in self._images if ending in group), None)
        if image or self._wanted.image or (beside and not self._images):
            return [_Sample(stem, image, beside)]
        longer = [ending for ending in group if "." in ending and self._is_of_use(ending)]
        found: dict[str, _Sample] = {}
        for ending in longer:
            before, _, last = ending.rpartition(".")
            one = found.setdefault(before, _Sample(f"{stem}.{before}", None, {}))
            if last in self._beside:
                one.texts[last] = ending
            elif one.image is None:
                found[before] = one._replace(image=ending)
        found = {k: one for k, one in found.items() if one.image or not self._images}
        if found:
            return [one._replace(texts=one.texts or beside) for one in found.values()]
        # Neither by its name: perhaps by its content.
        unnamed = next((e for e, data in group.items() if e not in beside and data), None)
        return [_Sample(stem, unnamed if self._images else None, beside)]

    def _is_of_use(self, ending: str) -> bool:
        if self._wanted.image and ending not in self._beside:
            return ending in self._images
        return _last(ending) in (*self._images, *self._beside)

    def _expected(self) -> str:
        return ", ".join(f".{ending}" for ending in (self._images or self._texts)[:4])


class _Sample(NamedTuple):
    """The endings of an item's members, in its group."""

    key: str
    image: str | None
    texts: dict[str, str]


class _Place(NamedTuple):
    """Where the bytes of an image lie."""

    key: str
    file: int
    offset: int
    size: int
    captions: tuple[str, ...]


def _groups(file: Stored, name: str) -> Iterator[tuple[str, dict[str, Member], bytes | None]]:
    """The members of each key, as `TarShards.read` groups them, and the content of `.name`."""
    key, value = "", None
    group: dict[str, Member] = {}
    try:
        for member in members(file.where, jump=True):
            stem, ending = _split(member.name)
            if not stem:  # a hidden file
                continue
            if stem != key or ending in group or len(group) == _MOST:
                if group:
                    yield key, group, value
                key, group, value = stem, {}, None
            group[ending] = member
            if ending == name and not member.link:
                value = member.read()
    except Damaged as damage:
        raise ValueError(f"{file.name}: {damage}") from damage
    if group:
        yield key, group, value


def _split(name: str) -> tuple[str, str]:
    """Key and ending: `a/b.left.PNG` is `a/b` and `left.png`."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return (folder + slash + stem if stem else ""), ending.lower()


def _last(ending: str) -> str:
    """`left.png` is `png`."""
    return ending.rpartition(".")[2]
