"""What a Parquet file says of its columns and pages, read before pyarrow unpacks any of them.

pyarrow ends the process where it is asked for a column whose statistics are damaged, so it is
not asked. What cannot be understood here is left to its reader, which says what is wrong.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Beyond so many times its stored size and so many bytes more, no page is unpacked: images do
# not compress, texts not so far, and a page without large values has a megabyte.
_RATIO, _FREE = 16, 64 << 20
# Bytes of a page's header that are read at first, and at most (as pyarrow does).
_HEADER, _HEADER_MOST = 1 << 12, 16 << 20
_DEPTH = 16
_DICTIONARY = 2

Read = Callable[[int, int], bytes]  # start and size to bytes, fewer at the end of the file


class Chunk(NamedTuple):
    """A column, without its lists and structs, of one row group.

    Attributes:
      path: its name, and the names of what is in it down to the values.
      start, end: of its pages in the file.
      values: how many it has.
    """

    path: tuple[str, ...]
    start: int
    end: int
    values: int


class Footer:
    """The columns of a file, a row group at a time.

    Args:
      read: of the file.
      size: of the file.
      starts: where row groups begin in its footer, as far as another object knows already; it
        is made longer.
    """

    def __init__(self, read: Read, size: int, starts: list[int]) -> None:
        self._read, self._size, self._starts = read, size, starts
        (length,) = struct.unpack("<I", read(size - 8, 4))
        self._data = read(size - 8 - length, length)
        if not starts:
            groups = _place(self._data, 4)
            if groups is not None:
                starts[:] = [_list(self._data, groups)[2]]

    def chunks(self, group: int, column: str) -> list[Chunk]:
        """What a column of a row group is made of; empty where that cannot be understood."""
        try:
            at = self._starts[min(group, len(self._starts) - 1)]
            for number in range(min(group, len(self._starts) - 1), group + 1):
                # Threads may find the same place at once.
                self._starts[number : number + 1] = [at]
                found, at = _struct(self._data, at)
            own = [_chunk(one[3]) for one in found[1] if one[3][3][0] == column.encode()]
        except (IndexError, KeyError, TypeError, ValueError):
            return []
        return own

    def largest(self, chunk: Chunk, *, all_pages: bool) -> int:
        """The most bytes that a value takes each time a page names it, in place of repeating it.

        Args:
          chunk: whose dictionary it is in; without one nothing is repeated.
          all_pages: look at every page, not only at the first.

        Raises:
          ValueError: a page says that it unpacks to far more than it can.
        """
        most = 0
        for kind, stored, unpacked, values in _pages(self._read, chunk.start, chunk.end):
            if unpacked > _FREE + _RATIO * stored:
                raise ValueError(f"a page of {stored:,} bytes says that it unpacks to {unpacked:,}")
            if kind == _DICTIONARY:
                most = max(most, unpacked - 4 * values)
            if not all_pages:
                break
        return most


def _chunk(facts: dict[int, Any]) -> Chunk:
    first = facts[9]
    start = min(first, facts[11]) if facts.get(11, 0) > 0 else first
    path = tuple(part.decode() for part in facts[3])
    return Chunk(path, start, start + facts[7], facts[5])


def _pages(read: Read, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, stored size, unpacked size and values of pages, as far as they can be understood."""
    while 0 <= at < end:
        size = _HEADER
        while True:
            data = read(at, size)
            try:
                header, length = _struct(data, 0)
                kind, unpacked, stored = header[1], header[2], header[3]
                values = header.get({_DICTIONARY: 7}.get(kind, 5), {}).get(1, 0)
                break
            except IndexError:
                if len(data) < size or size >= _HEADER_MOST:
                    return
                size *= 16
            except (AttributeError, KeyError, TypeError, ValueError):
                return
        if min(stored, unpacked, values) < 0:
            return
        yield kind, stored, unpacked, values
        at += length + stored


# Thrift's compact encoding: https://github.com/apache/thrift, doc/specs/thrift-compact-protocol.md
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT, _UUID = 1, 2, 3, 7, 8, 12, 13
_INTEGERS, _LISTS = (4, 5, 6), (9, 10)


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields of the struct at `at` by their numbers, and where it ends."""
    fields, number = {}, 0
    while head := data[at]:
        number, at = _number(data, at + 1, head, number)
        fields[number], at = _value(data, at, head & 15, depth)
    return fields, at + 1


def _place(data: bytes, wanted: int) -> int | None:
    """Where the value of a field of the struct at the beginning is."""
    at = number = 0
    try:
        while head := data[at]:
            number, at = _number(data, at + 1, head, number)
            if number == wanted and head & 15 in _LISTS:
                return at
            _, at = _value(data, at, head & 15, 0)
    except (IndexError, KeyError, ValueError):
        pass
    return None


def _number(data: bytes, at: int, head: int, last: int) -> tuple[int, int]:
    if head >> 4:
        return last + (head >> 4), at
    number, at = _varint(data, at)
    return number >> 1 ^ -(number & 1), at


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        number, at = _varint(data, at)
        return number >> 1 ^ -(number & 1), at
    if kind == _BINARY:
        size, at = _varint(data, at)
        if at + size > len(data):
            raise IndexError(size)
        return data[at : at + size], at + size
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind in _LISTS:
        size, inner, at = _list(data, at)
        values = []
        for _ in range(size):
            one, at = (data[at], at + 1) if inner < _BYTE else _value(data, at, inner, depth + 1)
            values.append(one)
        return values, at
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    return None, at + {_BYTE: 1, _DOUBLE: 8, _UUID: 16}[kind]


def _list(data: bytes, at: int) -> tuple[int, int, int]:
    """Length, kind, and where the first value is."""
    size, kind = divmod(data[at], 16)
    at += 1
    if size == 15:
        size, at = _varint(data, at)
    if size > len(data) - at:
        raise IndexError(size)
    return size, kind, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = data[at]
    at += 1
    if number < 128:
        return number, at
    number, shift = number & 127, 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("no number has so many bytes")
