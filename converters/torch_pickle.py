"""The pickle inside a PyTorch file, read by a machine that can make nothing but plain values.

Python's own unpickler calls what a pickle names. This one has no function to call: what is
named becomes a tag, a call of one of the few tags that weights need makes a plain value, and
an instruction that no state_dict needs is refused. Nothing in it recurses, and the number of
instructions bounds its memory.
"""

import io
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

# A tensor takes some 35 instructions, an instruction at most some 150 bytes.
_MOST_INSTRUCTIONS = 4_000_000
MOST_BYTES = 64 << 20
_MOST_OPEN = 1000  # containers that are being filled, one in the other

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# A dtype is pickled by its name in `torch`.
_DTYPE = re.compile(r"(b?float|u?int|complex|qu?int|bits)\d+(x\d+)?(_\w+)?|bool")


class Refused(Exception):
    """The pickle asks for something else than weights."""


class Storage(NamedTuple):
    key: str
    type: str
    size: int

    @property
    def dtype(self) -> np.dtype:
        return STORAGES[self.type]


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _StorageType(NamedTuple):
    name: str


class _Callable(NamedTuple):
    name: str


class _Inert:
    """What stands for settings and metrics that trainers keep beside the weights: nothing."""


# Paths are in pathlib._local where Python 3.13 wrote them.
# fmt: off
_CALLED = {
    "argparse.Namespace", "_codecs.encode", "pathlib.PosixPath", "pathlib.WindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "collections.OrderedDict", "torch.Size", "torch.device",
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
}
# fmt: on


def load(data: bytes) -> Any:
    """What a pickle holds: plain values, `Tensor`s, and nothing where settings were.

    Raises:
      Refused: if it asks for more; says for what.
      Exception: of any kind, if it is damaged.

    >>> load(b"\\x80\\x02}q\\x00X\\x01\\x00\\x00\\x00aK\\x03s.")
    {'a': 3}
    """
    if len(data) > MOST_BYTES:
        raise Refused(f"{len(data):,} bytes of names")
    return _Machine(data).run()


class _Machine:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # stacks below the marks
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_INSTRUCTIONS):
            code = self._file.read(1)
            if code == b".":
                return self._stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise Refused(f"the instruction {code!r}" if code else "more than is there")
            step(self)
        raise Refused(f"more than {_MOST_INSTRUCTIONS:,} instructions")

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise EOFError("it ends early")
        return data

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def mark(self) -> None:
        if len(self._outer) == _MOST_OPEN:
            raise Refused(f"more than {_MOST_OPEN:,} containers in each other")
        self._outer.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def append(self, items: list[Any]) -> None:
        _expect(self._stack[-1], list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = _expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def name(self, module: str, name: str) -> None:
        whole = f"{module}.{name}"
        if module == "torch" and name in STORAGES:
            self.push(_StorageType(name))
        elif module == "torch" and _DTYPE.fullmatch(name):
            self.push(name)  # data that a trainer keeps beside the weights
        elif whole in _CALLED:
            self.push(_Callable(whole))
        else:
            raise Refused(whole)

    def global_(self) -> None:
        module, name = (self._line() for _ in range(2))
        self.name(module, name)

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(_expect(module, str), _expect(name, str))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(_called(_expect(function, _Callable).name, _expect(arguments, tuple)))

    def build(self) -> None:
        # The attributes of a state_dict are versions of modules; those of settings are theirs.
        self.pop()
        if not isinstance(self._stack[-1], dict | _Inert):
            raise Refused(f"a state of {type(self._stack[-1]).__name__.strip('_')}")

    def persistent(self) -> None:
        kind, dtype, key, _, size = _expect(self.pop(), tuple)
        if kind != "storage" or not isinstance(dtype, _StorageType) or type(size) is not int:
            raise Refused("what is no storage")
        self.push(Storage(_expect(key, str), dtype.name, size))

    def _line(self) -> str:
        line = self._file.readline(1 << 10)
        if not line.endswith(b"\n"):
            raise EOFError("a name does not end")
        return line[:-1].decode("utf-8")


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "torch._utils._rebuild_tensor_v2":
        storage, offset, size, stride = arguments[:4]
        sides, steps = (_expect(part, tuple) for part in (size, stride))
        return Tensor(_expect(storage, Storage), offset, sides, steps)
    if name == "torch._utils._rebuild_parameter":
        return _expect(arguments[0], Tensor)
    if name == "torch.Size":
        return tuple(_expect(arguments[0], tuple | list)) if arguments else ()
    if name == "torch.device":
        return ":".join(str(part) for part in arguments if isinstance(part, str | int))
    if name == "collections.OrderedDict":
        pairs: list[Any] = _expect(arguments[0], list) if arguments else []
        return {_key(key): value for key, value in pairs}
    return _Inert()


def _key(key: Any) -> Any:
    # A hash of what is nested deep ends the process; no name of a weight is such a thing.
    return key if isinstance(key, str | int | float | bytes | None) else _Inert()


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (kind is tuple and hasattr(value, "_fields")):
        raise TypeError(f"{type(value).__name__.strip('_')} where {kind} belongs")
    return value


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return step


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(value)


def _text(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take(m.number(form)).decode("utf-8", "surrogatepass"))


def _raw(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take(m.number(form)))


def _frozen(machine: _Machine) -> None:
    machine.since_mark()
    machine.push(_Inert())


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # the protocol
    b"\x95": lambda m: m.take(8),  # a frame
    b"(": _Machine.mark,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"G": lambda m: m.push(m.number(">d")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("B")), "little", signed=True)),
    b"X": _text("<I"),
    b"\x8c": _text("B"),
    b"\x8d": _text("<Q"),
    b"B": _raw("<I"),
    b"C": _raw("B"),
    # What Python 2 wrote as text.
    b"T": lambda m: m.push(m.take(m.number("<I")).decode("latin-1")),
    b"U": lambda m: m.push(m.take(m.number("B")).decode("latin-1")),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": _constant(()),
    b"\x8f": lambda m: m.push([]),  # a set, of which nothing is read
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.since_mark()),
    b"\x90": lambda m: m.append(m.since_mark()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x91": _frozen,
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"q": lambda m: m.remember(m.number("B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(cast(Any, m)._memo)),
    b"h": lambda m: m.recall(m.number("B")),
    b"j": lambda m: m.recall(m.number("<I")),
    b"c": _Machine.global_,
    b"\x93": _Machine.stack_global,
    b"R": _Machine.call,
    b"\x81": _Machine.call,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
