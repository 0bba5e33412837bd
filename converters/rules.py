"""Rules: how tensors of big_vision become those of another system, and back.

A table of rules is written once, from big_vision to the other system, and read in
both directions. That is possible because everything systems do differently with a
weight is a rearrangement of axes, at most of several tensors into one: query, key
and value behind each other, say. Sizes that a rearrangement back needs (how many
heads, how wide the query) come from the model's configuration; they are never
derived from the other system's shapes, which do not state them.

Names are big_vision's in loop form (`siglip_jax.weights.layout`). numpy only.
"""

import collections
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class _Axes(NamedTuple):
    """A pattern taken apart: which axes, in what order, and which are joined."""

    rank: int
    kept: tuple[int, ...]  # axes of ours that are more than a literal 1
    order: tuple[int, ...]  # where each of theirs comes from, among the kept ones
    groups: tuple[tuple[int, ...], ...]  # positions in `order`; () is a literal 1


@dataclasses.dataclass(frozen=True)
class Op:
    """A rearrangement of axes, ours on the left: "d h k -> (h k) d".

    Axes in brackets are joined into one; a literal 1 is an axis of length one.

    >>> op = Op("d h k -> (h k) d")
    >>> theirs = op.forward(np.zeros((24, 3, 8)))
    >>> theirs.shape, op.inverse(theirs, (24, 3, 8)).shape
    ((24, 24), (24, 3, 8))
    """

    pattern: str

    def __str__(self) -> str:
        left, right = self.pattern.split("->")
        return "copy" if left.strip() == right.strip() else self.pattern.strip()

    @property
    def reverse(self) -> str:
        """The pattern from theirs to ours, to be read by people."""
        left, right = (side.strip() for side in self.pattern.split("->"))
        return "copy" if left == right else f"{right} -> {left}".strip()

    def shape(self, ours: Shape) -> Shape:
        """What a tensor of shape `ours` becomes."""
        axes = _parse(self.pattern)
        if len(ours) != axes.rank:
            raise ValueError(f"{self.pattern} does not fit a tensor of shape {ours}")
        permuted = [ours[axes.kept[i]] for i in axes.order]
        return tuple(math.prod(permuted[i] for i in group) for group in axes.groups)

    def forward(self, array: np.ndarray) -> np.ndarray:
        """Ours to theirs; a view where numpy can."""
        axes = _parse(self.pattern)
        core = array.reshape([array.shape[i] for i in axes.kept])
        return core.transpose(axes.order).reshape(self.shape(array.shape))

    def inverse(self, array: np.ndarray, ours: Shape) -> np.ndarray:
        """Theirs to ours, whose shape is `ours`."""
        axes = _parse(self.pattern)
        permuted = [ours[axes.kept[i]] for i in axes.order]
        return array.reshape(permuted).transpose(np.argsort(axes.order)).reshape(ours)


@functools.cache
def _parse(pattern: str) -> _Axes:
    left, right = pattern.split("->")
    names = left.split()
    kept = [i for i, name in enumerate(names) if name != "1"]
    groups: list[tuple[int, ...]] = []
    order: list[int] = []
    for token in re.findall(r"\([^)]*\)|\S+", right):
        members = [name for name in token.strip("()").split() if name != "1"]
        groups.append(tuple(range(len(order), len(order) + len(members))))
        order += [[names[i] for i in kept].index(name) for name in members]
    if sorted(order) != list(range(len(kept))):
        raise ValueError(f"not a rearrangement: {pattern!r}")
    return _Axes(len(names), tuple(kept), tuple(order), tuple(groups))


@dataclasses.dataclass(frozen=True)
class Rule:
    """Tensors `ours` of big_vision, each rearranged by `op`, behind each other in `theirs`.

    `{i}` in names is the layer. A rule without `ours` is a `constant`: a tensor that
    the other system wants and big_vision does without.
    """

    ours: tuple[str, ...]
    theirs: str
    op: Op
    constant: Literal["identity", "zeros"] | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """A rule for one tensor of one model: names without `{i}`, shapes on both sides."""

    ours: tuple[str, ...]
    theirs: str
    op: Op
    shapes: tuple[Shape, ...]  # of ours
    shape: Shape  # of theirs
    constant: Literal["identity", "zeros"] | None = None

    def forward(self, arrays: Sequence[np.ndarray], dtype: np.dtype | None = None) -> np.ndarray:
        """Their tensor from ours. `dtype` is what a constant is made in.

        Tensors of different dtypes are joined in the one that holds all of them.
        """
        if self.constant == "identity":
            return np.eye(*self.shape, dtype=dtype)
        if self.constant == "zeros":
            return np.zeros(self.shape, dtype)
        parts = [self.op.forward(array) for array in arrays]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def inverse(self, array: np.ndarray, name: str) -> np.ndarray:
        """Our tensor `name`, one of `ours`, from theirs."""
        start = 0
        for ours, shape in zip(self.ours, self.shapes, strict=True):
            if len(self.ours) == 1:
                return self.op.inverse(array, shape)
            rows = self.op.shape(shape)[0]
            if ours == name:
                return self.op.inverse(array[start : start + rows], shape)
            start += rows
        raise KeyError(name)

    def describe(self) -> str:
        """From ours to theirs, in a few words."""
        if self.constant:
            return f"constant: {self.constant}"
        joined = f", join {len(self.ours)}" if len(self.ours) > 1 else ""
        return f"{self.op}{joined}"


def expand(rules: Iterable[Rule], shapes: Mapping[str, Shape]) -> list[Step]:
    """The steps for a model whose parameters, in loop form, have these shapes.

    Rules for tensors that the model has not (a text head, the other tower) are left
    out. Steps of one rule, a layer each, follow each other.

    Raises:
      ValueError: if a parameter is in no rule, or in two.

    >>> expand([norm("txt/Encoder_0/encoder_norm", "ln_final")[0]],
    ...        {"txt/Encoder_0/encoder_norm/scale": (8,)})[0].theirs
    'ln_final.weight'
    """
    steps: list[Step] = []
    for rule in rules:
        layers = itertools.count() if "{i}" in rule.theirs else (0,)
        for i in layers:
            names = tuple(name.format(i=i) for name in rule.ours)
            if rule.constant is None and not all(name in shapes for name in names):
                break
            ours = tuple(shapes[name] for name in names)
            steps.append(
                Step(
                    ours=names,
                    theirs=rule.theirs.format(i=i),
                    op=rule.op,
                    shapes=ours,
                    shape=_joined_shape(rule.op, ours),
                    constant=rule.constant,
                )
            )
    used = collections.Counter(name for step in steps for name in step.ours)
    wrong = sorted(name for name in {*shapes, *used} if used[name] != 1)
    if wrong:
        raise ValueError(f"the table does not cover each tensor once: {', '.join(wrong)}")
    return steps


def _joined_shape(op: Op, ours: Sequence[Shape]) -> Shape:
    first, *rest = (op.shape(shape) for shape in ours)
    return (first[0] + sum(shape[0] for shape in rest), *first[1:]) if rest else first


# The parts that every table is made of. `theirs` is a module of the other system.

SAME_VECTOR = Op("d -> d")
DENSE = Op("i o -> o i")
CONV = Op("h w i o -> o i h w")
HEADS = Op("d h k -> (h k) d")
HEADS_BIAS = Op("h k -> (h k)")
HEADS_OUT = Op("h k d -> d (h k)")


def norm(ours: str, theirs: str) -> list[Rule]:
    """A LayerNorm."""
    return [
        Rule((f"{ours}/scale",), f"{theirs}.weight", SAME_VECTOR),
        Rule((f"{ours}/bias",), f"{theirs}.bias", SAME_VECTOR),
    ]


def dense(ours: str, theirs: str, kernel: Op = DENSE) -> list[Rule]:
    """A linear layer or, with `kernel=CONV`, a convolution."""
    return [
        Rule((f"{ours}/kernel",), f"{theirs}.weight", kernel),
        Rule((f"{ours}/bias",), f"{theirs}.bias", SAME_VECTOR),
    ]


def heads(ours: str, parts: Sequence[str], theirs: str) -> list[Rule]:
    """The projections `parts` of an attention, as one. `theirs` ends with '.' or '_'."""
    kernels = tuple(f"{ours}/{part}/kernel" for part in parts)
    biases = tuple(f"{ours}/{part}/bias" for part in parts)
    return [Rule(kernels, f"{theirs}weight", HEADS), Rule(biases, f"{theirs}bias", HEADS_BIAS)]


def heads_out(ours: str, theirs: str) -> list[Rule]:
    """The output projection of an attention."""
    return dense(f"{ours}/out", theirs, HEADS_OUT)
