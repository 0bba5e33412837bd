"""Damage to files, from a seed: of bytes, of JSON, of what is inside a zip or a Parquet file."""

import json

import numpy as np
import thrift
from fuzz_formats import rewritten

_NUMBERS = [0, 1, 2, 127, 128, 255, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
_VALUES = [
    None, True, False, 0, -1, 1, 10**9, 2**63, -(10**30), 1e308, float("nan"), float("inf"),
    "", "a", "../../etc/passwd", "/dev/zero", "\0", "\ud83d", "x" * 10_000, [], {}, [[]], [1, 2],
    {"a": 1}, [0] * 1000, ["a"], [None],
]  # fmt: skip


def of_bytes(data, rng):
    """One to six changes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 7)):
        if not data:
            break
        at = int(rng.integers(len(data)))
        match int(rng.integers(9)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.integers(256))
            case 2:
                size = int(rng.choice([1, 2, 4, 8]))
                number = _NUMBERS[rng.integers(len(_NUMBERS))] % (1 << 8 * size)
                order = ("little", "big")[rng.integers(2)]
                data[at : at + size] = number.to_bytes(size, order)
            case 3:
                del data[at : at + int(rng.integers(1, 20))]
            case 4:
                piece = data[at : at + int(rng.integers(1, 200))]
                data[at:at] = piece * int(rng.integers(1, 5))
            case 5:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            case 6:
                del data[at:]
            case 7:
                data[at : at + int(rng.integers(1, 50))] = b""
            case 8:
                size, other = int(rng.integers(1, 30)), int(rng.integers(len(data)))
                data[at : at + size] = data[other : other + size]
    return bytes(data)


def of_json(data, rng):
    """A value somewhere in it is another, is gone, or is nested deep."""
    values = json.loads(data)
    places = list(_places(values))
    for _ in range(int(rng.integers(1, 4))):
        holder, key = places[rng.integers(len(places))]
        match int(rng.integers(4)):
            case 0 | 1:
                holder[key] = _VALUES[rng.integers(len(_VALUES))]
            case 2 if isinstance(holder, dict):
                holder.pop(key, None)
            case _:
                holder[key] = {"a": holder.get(key) if isinstance(holder, dict) else 1}
    text = json.dumps(values)
    if rng.integers(20) == 0:
        deep = "[" * 50_000 + "]" * 50_000
        text = text.replace(":", f':{deep},"a":', 1)
    return text.encode("utf-8", "surrogatepass")


def _places(values):
    for key in values if isinstance(values, dict) else range(len(values)):
        yield values, key
        if isinstance(values[key], dict) or (isinstance(values[key], list) and values[key]):
            yield from _places(values[key])


def of_parquet(data, rng):
    """Fields of the struct at its end, or of a page's header, are others: a struct all the same."""
    fields = thrift.footer(data)
    if rng.integers(3):
        _change_fields(fields, rng)
        return thrift.with_footer(data, fields)
    columns = list(thrift.chunks(fields))
    column = columns[rng.integers(len(columns))]
    starts = [value for number, _, value in column if number in (9, 11)]
    start = starts[rng.integers(len(starts))]
    header, end = thrift.decoded(data, start)
    _change_fields(header, rng)
    made = thrift.encoded(header)
    # Where it fits, what follows stays where it was.
    return data[:start] + made + data[max(end, start + len(made)) :]


def _change_fields(fields, rng):
    places = list(_fields(fields))
    for _ in range(int(rng.integers(1, 4))):
        holder, at, kind, value = places[rng.integers(len(places))]
        if at >= len(holder):
            continue
        match int(rng.integers(6)):
            case 0:
                del holder[at]
                continue
            case 1:
                holder[at:at] = [holder[at]] * int(rng.choice([1, 2, 50]))
                continue
        if kind in thrift.INTEGERS:
            wrong = [*_NUMBERS, -1, -(2**31), -(2**63), value + 1, value - 1, value ^ 8]
            value = wrong[rng.integers(len(wrong))]
        elif kind == thrift.BINARY:
            value = of_bytes(value, rng)
        elif kind in thrift.BOOLEANS:
            kind = 3 - kind
        elif kind in thrift.LISTS:
            inner, values = value
            value = inner, values * int(rng.choice([0, 2, 40]))
        holder[at] = [holder[at][0], kind, value] if isinstance(holder[at], list) else value


def _fields(fields):
    """The holder, place, kind and value of every field and of every value in a list."""
    for at, (_, kind, value) in enumerate(fields):
        yield fields, at, kind, value
        if kind == thrift.STRUCT:
            yield from _fields(value)
        elif kind in thrift.LISTS:
            inner, values = value
            for place, one in enumerate(values):
                if inner == thrift.STRUCT:
                    yield from _fields(one)
                elif inner not in thrift.BOOLEANS:
                    yield values, place, inner, one


def damaged(data, kind, rng):
    """`data` as case `rng` has it."""
    if kind == "json" and rng.integers(4):
        return of_json(data, rng)
    if kind == "zip" and rng.integers(4):
        wrong = int(rng.integers(8))

        def change(number, content):
            return of_bytes(content, rng) if number == wrong or wrong == 7 else content

        return rewritten(data, change)
    if kind == "parquet" and rng.integers(4):
        return of_parquet(data, rng)
    return of_bytes(data, rng)


def generator(name, case):
    """The numbers of one case of a format."""
    return np.random.default_rng([case, *name.encode()])
