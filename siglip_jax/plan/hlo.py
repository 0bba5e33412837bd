"""Compiled programs read from their HLO text: which computation runs how often.

XLA's own numbers count the body of a loop once. Here is what is needed to multiply: the
loops, how often each runs, and the matmuls in it.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b([a-z]+\d+(?:e\d+m\d+\w*)?|pred)\[([\d,]*)\]")
_OPCODE = re.compile(r"(?:^| )([a-z][a-z0-9\-]*)\(")
_NOT_MEMORY = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}
_NOT_MEMORY |= {"call", "conditional", "after-all", "partition-id", "replica-id"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`%name = shape opcode(operands), attributes`; names without %."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    inside: str = ""  # the text between the parentheses

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """dtype and shape of every array of the result."""
        return arrays(self.shape)

    @property
    def nbytes(self) -> int:
        return sum(BYTES.get(dtype, 1) * math.prod(shape) for dtype, shape in self.arrays)

    def called(self) -> list[str]:
        """Computations that run when this does; of a loop neither body nor condition."""
        names = re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", self.attributes)
        for group in re.findall(r"(?:branch|called)_computations=\{([^}]*)\}", self.attributes):
            names += re.findall(r"%?([\w.\-]+)", group)
        return names


@dataclasses.dataclass(frozen=True)
class Module:
    """Computations by name; `times` says how often each runs in one call of the program.

    `unknown` names loops whose number of turns is not in the text; they count as one.
    """

    computations: Mapping[str, Sequence[Instruction]]
    times: Mapping[str, int]
    fused: frozenset[str]
    unknown: tuple[str, ...]
    loops: int

    def executed(self) -> Iterator[tuple[Instruction, Mapping[str, Instruction], int]]:
        """Every instruction that runs, the names it can see, how often it runs."""
        for name, times in self.times.items():
            scope = {each.name: each for each in self.computations[name]}
            for instruction in scope.values():
                yield instruction, scope, times

    def matmul_flops(self) -> tuple[int, int]:
        """Of matmuls and convolutions: loop bodies once, and as often as they run."""
        once = every = 0
        for instruction, scope, times in self.executed():
            flops = _matmul(instruction, scope)
            once, every = once + flops, every + flops * times
        return once, every

    def repeated_bytes(self) -> int:
        """Bytes that loop bodies read and write in all turns but the first.

        The operands and results of every instruction, a fusion being one; of an operand that
        is only sliced, the slice.
        """
        return sum(
            (times - 1) * self._bytes(instruction, scope)
            for name, times in self.times.items()
            if times > 1 and name not in self.fused
            for scope in [{each.name: each for each in self.computations[name]}]
            for instruction in scope.values()
        )

    def _bytes(self, instruction: Instruction, scope: Mapping[str, Instruction]) -> int:
        opcode = instruction.opcode
        if opcode in _NOT_MEMORY or opcode.endswith("-done"):
            return 0
        if opcode == "dynamic-slice":
            return 2 * instruction.nbytes
        total = instruction.nbytes
        for position, operand in enumerate(instruction.operands):
            if operand in scope:
                whole = scope[operand].nbytes
                total += self._read(instruction, position, whole)
        return total

    def _read(self, instruction: Instruction, position: int, whole: int) -> int:
        """Bytes that a fusion reads of an operand."""
        if instruction.opcode != "fusion":
            return whole
        inside = self.computations.get(instruction.called()[0], ())
        parameter = next(
            (p.name for p in inside if p.opcode == "parameter" and p.inside == str(position)), None
        )
        users = [each for each in inside if parameter in each.operands]
        sizes = [
            self._read(user, user.operands.index(parameter), whole)
            if user.opcode == "fusion"
            else user.nbytes
            if user.opcode == "dynamic-slice"
            else whole
            for user in users
        ]
        return min(whole, sum(sizes))


def read_module(text: str) -> Module:
    """Reads what `compiled.as_text()` gives.

    Raises:
      ValueError: if there is no entry computation in it.
    """
    computations: dict[str, list[Instruction]] = {}
    entry = current = None
    for line in text.splitlines():
        if line[:1] in ("%", "E") and line.endswith("{"):
            name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
            entry = name if line.startswith("ENTRY ") else entry
            current = computations.setdefault(name, [])
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            current.append(_instruction(line))
    if entry is None:
        raise ValueError("this is no HLO text: it has no ENTRY")
    times: dict[str, int] = {}
    fused, unknown, loops = set(), [], []

    def visit(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for instruction in computations[name]:
            if instruction.opcode == "while":
                turns = _turns(instruction, computations)
                loops.append(instruction.name)
                if turns is None:
                    unknown.append(instruction.name)
                body = _matched(r"body=%?([\w.\-]+)", instruction.attributes)
                visit(body[1], count * (turns or 1))
            elif instruction.opcode not in ("reduce", "sort", "scatter", "reduce-window", "map"):
                for callee in instruction.called():
                    if instruction.opcode == "fusion":
                        fused.add(callee)
                    if callee in computations:
                        visit(callee, count)

    visit(entry, 1)
    return Module(computations, times, frozenset(fused), tuple(unknown), len(loops))


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """dtype and shape of every array in the text of a shape.

    >>> arrays("(bf16[2,3]{1,0:T(8,128)}, pred[])")
    [('bf16', (2, 3)), ('pred', ())]
    """
    return [
        (dtype, tuple(int(side) for side in sides.split(",") if side))
        for dtype, sides in _ARRAY.findall(shape)
    ]


def _instruction(line: str) -> Instruction:
    left, right = line.split(" = ", 1)
    found = _OPCODE.search(right)
    if found is None:
        return Instruction(left.split()[-1].lstrip("%"), right, "", (), "")
    depth, end = 1, found.end()
    while depth and end < len(right):
        depth += {"(": 1, ")": -1}.get(right[end], 0)
        end += 1
    inside = right[found.end() : end - 1]
    return Instruction(
        name=left.split()[-1].lstrip("%"),
        shape=right[: found.start()],
        opcode=found[1],
        operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
        attributes=right[end:],
        inside=inside,
    )


def _turns(loop: Instruction, computations: Mapping[str, Sequence[Instruction]]) -> int | None:
    """How often a loop runs: what XLA found out, or the one number its condition compares with."""
    if known := re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    numbers = {
        int(each.inside)
        for each in computations.get(condition[1] if condition else "", ())
        if each.opcode == "constant" and each.inside.isdigit()
    }
    return numbers.pop() if len(numbers) == 1 else None


def _matmul(instruction: Instruction, scope: Mapping[str, Instruction]) -> int:
    if instruction.opcode not in ("dot", "convolution", "custom-call"):
        return 0
    sides = [scope[name].arrays[0][1] for name in instruction.operands[:2] if name in scope]
    if len(sides) < 2:
        return 0
    out = instruction.arrays[0][1]
    if instruction.opcode == "convolution":
        return _convolution(out, sides[0], sides[1], instruction.attributes)
    contracted = re.search(
        r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([\d,"]*)[\]}]', instruction.attributes
    )
    if contracted is None:
        return 0
    width = math.prod(sides[0][int(d)] for d in re.findall(r"\d+", contracted[1]))
    return 2 * math.prod(out) * width


def _matched(pattern: str, attributes: str) -> re.Match[str]:
    """The match of what every instruction of a kind has.

    Raises:
      ValueError: if XLA has begun to write it in another way.
    """
    match = re.search(pattern, attributes)
    if match is None:
        raise ValueError(f"{pattern} is not in the attributes of an HLO instruction: {attributes}")
    return match


def _convolution(
    out: tuple[int, ...], lhs: tuple[int, ...], rhs: tuple[int, ...], attributes: str
) -> int:
    """Multiplications that read padding or the gaps of a dilation are no work, as XLA counts."""
    labels = _matched(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    groups = re.search(r"batch_group_count=(\d+)", attributes)
    flops = 2 * rhs[labels[2].index("i")] * rhs[labels[2].index("o")] * out[labels[3].index("b")]
    if groups:
        flops //= int(groups[1])
    spatial = [label for label in labels[3] if label.isdigit()]
    for label in spatial:

        def field(name: str, default: str, dim: int = int(label)) -> str:
            return fields[name].split("x")[dim] if name in fields else default

        low = int(field("pad", "0_0").split("_")[0])
        flops *= _valid(
            out[labels[3].index(label)],
            lhs[labels[1].index(label)],
            rhs[labels[2].index(label)],
            int(field("stride", "1")),
            low,
            int(field("lhs_dilate", "1")),
            int(field("rhs_dilate", "1")),
        )
    return flops


@functools.cache
def _valid(
    out: int, size: int, kernel: int, stride: int, low: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Pairs of an output and a kernel position that read a number of the input."""
    import numpy as np

    taps, count = np.arange(kernel) * rhs_dilate - low, 0
    for position in range(out):
        where = taps + position * stride
        inside = (where >= 0) & (where <= (size - 1) * lhs_dilate) & (where % lhs_dilate == 0)
        count += int(inside.sum())
    return count
