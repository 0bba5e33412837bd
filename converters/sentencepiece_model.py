"""What a sentencepiece model says of itself, read from its protocol buffer without protobuf.

The numbers of the fields are those of sentencepiece's `sentencepiece_model.proto`.
"""

import dataclasses
import enum
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What a piece is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    text: str
    score: float
    kind: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencepieceModel:
    """The vocabulary, its algorithm and its normalizer.

    Attributes:
      pieces: by id.
      algorithm: "unigram", "bpe", "word" or "char".
      byte_fallback: whether unknown characters become their bytes.
      suffix: whether the mark of a space ends a word instead of beginning it.
      normalization: its name, such as "nmt_nfkc" or "identity".
      charsmap: the same, compiled; empty for none.
      dummy_prefix: whether a text begins with a space that is not there.
      squeeze: whether spaces at both ends, and all but one within, are removed.
      escape: whether a space is written as U+2581.
    """

    pieces: tuple[Piece, ...]
    algorithm: str
    byte_fallback: bool
    suffix: bool
    normalization: str
    charsmap: bytes
    dummy_prefix: bool
    squeeze: bool
    escape: bool

    @property
    def unknown(self) -> str:
        """The piece that stands for what no other does."""
        return next(piece.text for piece in self.pieces if piece.kind == Kind.UNKNOWN)

    def control(self) -> tuple[str, ...]:
        """The first pieces that are not text, by which families are told apart."""
        names: list[str] = []
        for piece in self.pieces[:4]:
            if piece.kind not in (Kind.CONTROL, Kind.UNKNOWN):
                break
            names.append(piece.text)
        return tuple(names)


_MOST = 64 << 20  # bytes; Gemma's has four million


def read_sentencepiece_model(path: Path) -> SentencepieceModel:
    """Reads a model file.

    Raises:
      ValueError: if it is not one.
    """
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"{path}: more than {_MOST:,} bytes, not a sentencepiece model")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _parsed(data)
    # What a damaged file makes the reading of fields stumble over.
    except Exception as error:
        raise ValueError(f"{path}: not a sentencepiece model") from error


# A conversion asks several times about one file.
@functools.lru_cache(maxsize=1)
def _parsed(data: bytes) -> SentencepieceModel:
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    pieces: list[Piece] = []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(dict(_fields(value))))
        elif number in (2, 3) and isinstance(value, bytes):
            (trainer if number == 2 else normalizer).update(_fields(value))
    name, charsmap = normalizer.get(1, b""), normalizer.get(2, b"")
    assert isinstance(name, bytes) and isinstance(charsmap, bytes) and pieces
    return SentencepieceModel(
        pieces=tuple(pieces),
        algorithm={1: "unigram", 2: "bpe", 3: "word", 4: "char"}[int(trainer.get(3, 1))],
        byte_fallback=bool(trainer.get(35, 0)),
        suffix=bool(trainer.get(24, 0)),
        normalization=name.decode(),
        charsmap=charsmap,
        dummy_prefix=bool(normalizer.get(3, 1)),
        squeeze=bool(normalizer.get(4, 1)),
        escape=bool(normalizer.get(5, 1)),
    )


def _piece(part: dict[int, int | bytes]) -> Piece:
    text, score = part.get(1, b""), part.get(2, bytes(4))
    assert isinstance(text, bytes) and isinstance(score, bytes)
    return Piece(text.decode(), struct.unpack("<f", score)[0], int(part.get(3, Kind.NORMAL)))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields; fixed-size values as their bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        else:
            assert wire in (1, 5), wire
            size = 8 if wire == 1 else 4
        assert at + size <= end
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        assert shift < 64
