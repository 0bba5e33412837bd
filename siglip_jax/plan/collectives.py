"""What chips send each other, read from a compiled program."""

import math
import re
from collections import Counter
from typing import NamedTuple

from siglip_jax.plan.hlo import BYTES, Instruction, Module, arrays

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
KINDS += ("collective-broadcast", "ragged-all-to-all")


class Collective(NamedTuple):
    """Equal collectives.

    Attributes:
      kind: as HLO calls it, such as all-gather.
      array: dtype and shape, such as f32[64,768]: the whole, on a chip that has all of it.
      count: how many in one call of the program, those in loops as often as they run.
      nbytes: of one.
      groups: how many groups of chips do it, each among themselves.
      group: chips in a group.
    """

    kind: str
    array: str
    count: int
    nbytes: int
    groups: int
    group: int

    @property
    def total(self) -> int:
        """Bytes in one call of the program."""
        return self.count * self.nbytes


def collectives(module: Module, devices: int) -> list[Collective]:
    """All collectives of a program for `devices` chips, largest first."""
    counts: Counter[Collective] = Counter()
    for instruction, scope, times in module.executed():
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        shapes = [instruction.shape]
        shapes += [scope[name].shape for name in instruction.operands if name in scope]
        each = [(d, s) for shape in shapes for d, s in arrays(shape)]
        # Of all-gather the result is the whole, of reduce-scatter the operand.
        dtype, sides = max(each, key=lambda a: BYTES.get(a[0], 1) * math.prod(a[1]))
        groups, group = _groups(instruction, devices)
        array = f"{dtype}[{','.join(map(str, sides))}]"
        nbytes = BYTES.get(dtype, 1) * math.prod(sides)
        counts[Collective(kind, array, 0, nbytes, groups, group)] += times
    found = [each._replace(count=count) for each, count in counts.items()]
    return sorted(found, key=lambda each: -each.total)


def _groups(instruction: Instruction, devices: int) -> tuple[int, int]:
    """How many groups, and how many devices in each."""
    text = instruction.attributes
    if instruction.opcode.startswith("collective-permute"):
        return 1, devices
    if listed := re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", text):
        groups = re.findall(r"\{([\d, ]+)\}", listed[1])
        return len(groups), len(groups[0].split(","))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", text):
        return int(iota[1]), int(iota[2])
    if mesh := re.search(r"replica_groups=(?:@?\w*)\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sides = {axis: int(side) for axis, side in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        group = math.prod(sides[axis] for axis in re.findall(r"'([^']+)'", mesh[2]))
        return devices // group, group
    return 1, devices
