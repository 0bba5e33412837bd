"""Thrift's compact encoding, as Parquet has it, taken apart and put together again.

A struct is a list of [number, kind, value]; a list of values is (kind, [value]).
"""

import struct

BOOLEANS, INTEGERS, BINARY, LISTS, STRUCT = (1, 2), (4, 5, 6), 8, (9, 10), 12


def decoded(data, at=0):
    """The struct at `at`, and where it ends."""
    fields, number = [], 0
    while data[at]:
        step, kind = divmod(data[at], 16)
        at += 1
        if step:
            number += step
        else:
            number, at = _signed(data, at)
        value, at = _value(data, at, kind)
        fields.append([number, kind, value])
    return fields, at + 1


def encoded(fields):
    out, last = bytearray(), 0
    for number, kind, value in fields:
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            out += _varint(_folded(number))
        out += _bytes(kind, value)
        last = number
    return bytes(out) + b"\0"


def field(fields, number):
    """The value of a field."""
    return next(value for found, _, value in fields if found == number)


def footer(data):
    """The struct at the end of a Parquet file."""
    (size,) = struct.unpack("<I", data[-8:-4])
    return decoded(data[-8 - size : -8])[0]


def with_footer(data, fields):
    """A Parquet file with another struct at its end."""
    (size,) = struct.unpack("<I", data[-8:-4])
    made = encoded(fields)
    return data[: -8 - size] + made + struct.pack("<I", len(made)) + b"PAR1"


def chunks(fields):
    """The metadata of all columns of all row groups, each a struct."""
    for group in field(fields, 4)[1]:
        for chunk in field(group, 1)[1]:
            yield field(chunk, 3)


def _value(data, at, kind):
    if kind in BOOLEANS:
        return None, at
    if kind in INTEGERS:
        return _signed(data, at)
    if kind == BINARY:
        size, at = _unsigned(data, at)
        return bytes(data[at : at + size]), at + size
    if kind == STRUCT:
        return decoded(data, at)
    assert kind in LISTS, kind
    size, inner = divmod(data[at], 16)
    at += 1
    if size == 15:
        size, at = _unsigned(data, at)
    values = []
    for _ in range(size):
        if inner in BOOLEANS:
            value, at = data[at], at + 1
        else:
            value, at = _value(data, at, inner)
        values.append(value)
    return (inner, values), at


def _bytes(kind, value):
    if kind in BOOLEANS:
        return b""
    if kind in INTEGERS:
        return _varint(_folded(value))
    if kind == BINARY:
        return _varint(len(value)) + value
    if kind == STRUCT:
        return encoded(value)
    inner, values = value
    out = bytes([len(values) << 4 | inner]) if len(values) < 15 else bytes([0xF0 | inner])
    out += _varint(len(values)) if len(values) >= 15 else b""
    each = (bytes([v]) if inner in BOOLEANS else _bytes(inner, v) for v in values)
    return out + b"".join(each)


def _folded(number):
    return (number << 1 ^ number >> 63) & (1 << 64) - 1


def _varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _unsigned(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return number, at


def _signed(data, at):
    number, at = _unsigned(data, at)
    return number >> 1 ^ -(number & 1), at
