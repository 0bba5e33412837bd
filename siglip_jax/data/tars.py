"""Pairs from webdataset tars."""

import json
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.data.pair import Pair, digest, names_and_sizes, refuse_missing, text_captions

_IMAGES = ("jpg", "jpeg", "png", "webp")
_CAPTIONS = ("caption", "captions")


class Place(NamedTuple):
    """Where the bytes of an image lie."""

    file: int
    offset: int
    size: int


class TarPairs:
    """Pairs from the tars of a webdataset, read where they lie.

    The members of one tar whose paths agree up to the first dot of the file name are a
    pair. Opening reads the headers and the captions of all tars; positions and captions
    are then held in memory, and an image costs one read.

    Args:
      files: uncompressed tars, in order.
      image: what follows the first dot in the names of the images, such as "jpg" or
        "left.png"; otherwise the first of jpg, jpeg, png and webp that there is.
      caption: key in the .json that holds a caption or a list of them. Otherwise a .txt,
        one caption a line, or, where there is none, `caption` or `captions` in the .json.
      source: what messages call the data.

    Raises:
      ValueError: if a tar is truncated or damaged (the member is named), a name occurs
        twice in it, or a picture has no caption or a caption no picture.
    """

    def __init__(
        self, files: list[Path], image: str | None, caption: str | None, source: str
    ) -> None:
        self._files, self._names = files, [image, caption]
        self._keys: list[str] = []
        self._captions: list[tuple[str, ...]] = []
        self._places: list[Place] = []
        endings = (image.lower(),) if image else _IMAGES
        texts = ("json",) if caption else ("txt", "json")
        faceless: list[str] = []
        for number, file in enumerate(files):
            for key, members in _read(file, texts, endings).items():
                place = next((members[e] for e in endings if e in members), None)
                if place is None:
                    faceless.append(key)
                    continue
                self._keys.append(key)
                self._places.append(place._replace(file=number))
                self._captions.append(_captions(f"{file}: {key}", members, caption))
        expected = ", ".join(f".{e}" for e in endings)
        total = len(self._keys) + len(faceless)
        refuse_missing(source, f"image ({expected})", faceless, total)
        if not total:
            raise ValueError(f"{source}: there are no images ({expected}) in it")
        bare = [key for key, texts in zip(self._keys, self._captions, strict=True) if not texts]
        refuse_missing(source, "caption", bare, total)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Pair:
        place, key = self._places[index], self._keys[index]
        file = self._files[place.file]
        # Opened every time: that costs little, and needs no care for threads and processes.
        try:
            with file.open("rb", buffering=0) as opened:
                opened.seek(place.offset)
                data = opened.read(place.size)
        except OSError as error:
            raise ValueError(f"{file}: {key}: cannot be read: {error.strerror}") from error
        if len(data) < place.size:
            raise ValueError(f"{file}: {key}: the file has become shorter since it was opened")
        return Pair(key, data, self._captions[index])

    def captions(self, index: int) -> tuple[str, ...]:
        return self._captions[index]

    def identity(self) -> str:
        return digest("tar", names_and_sizes(self._files), self._names, len(self))


def _read(
    file: Path, texts: Collection[str], images: Collection[str]
) -> dict[str, dict[str, bytes | Place]]:
    """Key to ending to content, or for images to where it lies, of one tar."""
    found: dict[str, dict[str, bytes | Place]] = {}
    last = "its beginning"
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                last = member.name
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                ending = ending.lower()
                if not member.isfile() or not stem or ending not in {*texts, *images}:
                    continue
                group = found.setdefault(f"{folder}/{stem}" if folder else stem, {})
                if ending in group:
                    raise ValueError(f"{file}: {member.name} is in it twice")
                if ending in texts:
                    group[ending] = tar.extractfile(member).read()
                else:
                    group[ending] = Place(0, member.offset_data, member.size)
            _check_end(tar)
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file}: truncated or damaged after {last}: {reason}") from error
    return found


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises a ReadError if something else than an end follows: tarfile takes it for one."""
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if any(block) or len(block) not in (0, tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no valid header")


def _captions(name: str, members: dict[str, Any], caption: str | None) -> tuple[str, ...]:
    """The captions of one pair."""
    try:
        if "txt" in members:
            return text_captions(members["txt"].decode().splitlines())
        content = json.loads(members.get("json", b"{}"))
    except ValueError as error:
        raise ValueError(f"{name}: its caption cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name}: its .json must hold an object, got {type(content).__name__}")
    return next(
        (t for n in ([caption] if caption else _CAPTIONS) if (t := text_captions(content.get(n)))),
        (),
    )
