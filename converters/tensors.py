"""The tensors that a conversion writes, before any of them is read."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from siglip_jax.config import Tower
from siglip_jax.weights.layout import PREFIX, block_name, parameter_shapes, split_block_name
from siglip_jax.weights.reader import Header
from siglip_jax.weights.routes import mismatches, reform, refuse

from .checkpoint import OpenCheckpoint
from .loop_form import LoopForm
from .rules import Shape, Step
from .translation import Translation

Digest = Callable[[str, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class PlanStep:
    """One row of a plan: stored tensors, the tensor made of them, and how.

    Attributes:
      sources: names in the source's own files; none for a constant.
      source_shapes: their shapes there.
      target: name in the files written.
      shape, dtype: of that tensor.
      operation: in a few words; "copy" if nothing changes.
    """

    sources: tuple[str, ...]
    source_shapes: tuple[Shape, ...]
    target: str
    shape: Shape
    dtype: str
    operation: str


@dataclasses.dataclass(frozen=True)
class Output:
    """A tensor to be written: `parts` are big_vision's, read from a `LoopForm`."""

    name: str
    header: Header
    parts: tuple[str, ...]
    step: Step | None = None
    stacked: bool = False

    def make(self, reader: LoopForm, digest: Digest) -> np.ndarray:
        """Reads and arranges it. `digest` is shown each of big_vision's tensors."""
        if self.stacked:
            array = np.empty(*self.header)
            for layer, name in enumerate(self.parts):
                array[layer] = self._read(reader, name, digest)
            return array
        arrays = [self._read(reader, name, digest) for name in self.parts]
        if self.step is None:
            return arrays[0]
        return self.step.forward(arrays, self.header.dtype)

    def _read(self, reader: LoopForm, name: str, digest: Digest) -> np.ndarray:
        array = reader.read(name).astype(self.header.dtype, copy=False)
        block = split_block_name(name)
        if block is not None and block.layer is None:
            for layer, part in enumerate(array):
                digest(block_name(block.encoder, layer, block.leaf), part)
        else:
            digest(name, array)
        return array


def check(source: OpenCheckpoint) -> None:
    """Raises a ValueError unless the source's tensors are exactly those of its configuration."""
    looped = LoopForm(source.reader)
    found = {name: header.shape for name, header in looped.shapes.items()}
    refuse(str(source.path), mismatches(found, parameter_shapes(source.config)))


def outputs(
    source: OpenCheckpoint,
    steps: list[Step] | None,
    *,
    tower: Tower | None = None,
    dtype: np.dtype | None = None,
    scan_image: bool | None = None,
    scan_text: bool | None = None,
) -> list[Output]:
    """Every tensor to be written, those of one stacked tensor together.

    Args:
      source: where they come from.
      steps: of the other system; None for big_vision's own names.
      tower: the one to convert, or None for all there is.
      dtype: of everything written, or None to leave it.
      scan_image, scan_text: form of each tower, for big_vision's own names.
    """
    if steps is not None:
        headers = LoopForm(source.reader).shapes
        # A constant is made in the dtype that the rest has.
        every = tuple(name for step in steps for name in step.ours)
        return [
            Output(
                step.theirs,
                Header(step.shape, dtype or _common(headers, step.ours or every)),
                step.ours,
                step,
            )
            for step in steps
        ]
    headers = source.reader.shapes
    inside = f"{PREFIX[tower]}/" if tower else ""
    shapes = {name: header.shape for name, header in headers.items() if name.startswith(inside)}
    made: list[Output] = []
    for route in reform(shapes, scan_image=scan_image, scan_text=scan_text):
        found = dtype or _common(headers, route.sources)
        shape = shapes[route.sources[0]]
        if route.how == "stack":
            header = Header((len(route.sources), *shape), found)
            made.append(Output(route.targets[0], header, route.sources, stacked=True))
        else:
            header = Header(shape[1:] if route.how == "unstack" else shape, found)
            made += [Output(target, header, (target,)) for target in route.targets]
    return made


def describe(source: OpenCheckpoint, made: Iterable[Output]) -> list[PlanStep]:
    """The plan as people read it: the names that are in the files on both sides."""
    looped = LoopForm(source.reader)
    return [_describe(source, looped, output) for output in made]


def stored_names(source: OpenCheckpoint) -> set[str]:
    """The names that are in the source's files, of weights of the model."""
    looped = LoopForm(source.reader)
    return {_stored(source, looped, name)[0] for name in looped.shapes}


def _stored(source: OpenCheckpoint, looped: LoopForm, name: str) -> tuple[str, Shape]:
    """The tensor in the source's files that big_vision's `name` is in, and its shape there."""
    if isinstance(source.reader, Translation):
        theirs = source.reader.steps[name].theirs
        return theirs, source.reader.stored_shape(theirs)
    whole, _ = looped.origin(name)
    return whole, source.reader.shapes[whole].shape


def _describe(source: OpenCheckpoint, looped: LoopForm, output: Output) -> PlanStep:
    sources: dict[str, Shape] = {}
    before: list[str] = []
    after = [f"stack {len(output.parts)} layers"] if output.stacked else []
    theirs = output.step
    if theirs is not None:
        after.append(theirs.describe())
    for name in output.parts:
        sources |= [_stored(source, looped, name)]
        if isinstance(source.reader, Translation):
            step = source.reader.steps[name]
            before = [] if step.op.reverse == "copy" else [step.op.reverse]
            if theirs is not None and theirs.op == step.op:
                # There and back again.
                before = []
                after = [f"join {len(theirs.ours)}"] if len(theirs.ours) > 1 else []
            if len(step.ours) > 1 and output.parts == step.ours:
                after = []
            elif len(step.ours) > 1:
                places = [step.ours.index(part) + 1 for part in output.parts if part in step.ours]
                before.insert(0, f"take part {' and '.join(map(str, places))} of {len(step.ours)}")
        else:
            _, layer = looped.origin(name)
            before = [] if layer is None else [f"take layer {layer}"]
    words = [word for word in (*before, *after) if word != "copy"]
    return PlanStep(
        sources=tuple(sources),
        source_shapes=tuple(sources.values()),
        target=output.name,
        shape=output.header.shape,
        dtype=output.header.dtype.name,
        operation=", ".join(words) or "copy",
    )


def _common(headers: Mapping[str, Header], names: Iterable[str]) -> np.dtype:
    """The dtype that holds all of these tensors without loss."""
    return np.result_type(*{headers[name].dtype for name in names})
