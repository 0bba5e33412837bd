"""Another system's weights under big_vision's names, and what does not belong to a SigLIP."""

import contextlib
import re
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Self

import numpy as np

from siglip_jax.weights.reader import FLOATS, Header, Reader
from siglip_jax.weights.routes import mismatches, refuse

from .rules import Shape, Step
from .wrappers import left_out, report

# Tensors that tell another architecture at a glance, and what they are.
_FOREIGN = (
    (r"class_embedding|class_token|cls_token|(^|/)cls$", "a class token, as in CLIP and DINO"),
    (r"reg(ister)?_tokens?", "register tokens, as in DINOv2"),
    (r"rope|rotary|freqs|inv_freq", "rotary position embeddings"),
    (r"\.ls\d|layer_?scale|lambda1|gamma_?1", "layer scale, as in DINOv2"),
    (r"q_norm|k_norm|query_norm", "normalised queries and keys"),
    (r"pre_layrnorm|ln_pre|norm_pre", "a norm before the blocks, as in CLIP"),
    (r"relative_position|rel_pos", "relative position embeddings"),
    (r"mlp\.(gate|w12|fc1_g)", "a gated MLP"),
)


# How the reason begins for which a tensor of another part of the file is left out.
APART = "not in the tower"


class Translation:
    """The weights of another system as a reader of big_vision's names, in loop form.

    Built by `translate`; see `weights.reader.Reader`. `reports`: what training code had put
    around the stored names, a line or none.
    """

    subtree = ""
    ignored: tuple[str, ...]

    def __init__(self, stored: Reader, steps: Sequence[Step], ignored: tuple[str, ...]) -> None:
        self.path = stored.path
        self.ignored = ignored
        self.steps = {name: step for step in steps for name in step.ours}
        self.shapes = {
            name: Header(shape, stored.shapes[step.theirs].dtype)
            for step in steps
            for name, shape in zip(step.ours, step.shapes, strict=True)
        }
        self.reports = report(stored)
        self._stored = stored
        self._last: tuple[str, np.ndarray] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._last = None
        self._stored.close()

    def stored_shape(self, name: str) -> Shape:
        """The shape of a tensor in the file, by its name there."""
        return self._stored.shapes[name].shape

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`, rearranged; raises as the file's own reader does."""
        step = self.steps[name]
        if len(step.ours) == 1:
            return step.inverse(self._stored.read(step.theirs), name)
        # Query, key and value are one tensor there, and asked for one after the other.
        if self._last is None or self._last[0] != step.theirs:
            self._last = None
            self._last = (step.theirs, self._stored.read(step.theirs))
        return step.inverse(self._last[1], name)


@contextlib.contextmanager
def closing_on_error(stored: Reader) -> Generator[None, None, None]:
    """Closes a file if the block fails."""
    try:
        yield
    except BaseException:
        stored.close()
        raise


def translate(
    stored: Reader,
    steps: Sequence[Step],
    drop: Mapping[str, str] | None = None,
    apart: Collection[str] = (),
) -> tuple[Translation, dict[str, str]]:
    """A reader of big_vision's names, and what was dropped by which rule.

    Args:
      stored: the other system's file; closed if this fails.
      steps: what it must hold, all of it and nothing else. Constants may be absent.
      drop: patterns of stored names that are no weights, and the rule's name.
      apart: stored names that the caller reads itself.

    Raises:
      ValueError: one line if the weights are of another architecture, else everything
        that is missing, unexpected, of a wrong shape or not a float.
    """
    with closing_on_error(stored):
        dropped: dict[str, str] = dict(left_out(stored))
        for name in stored.shapes:
            for pattern, rule in (drop or {}).items():
                if re.fullmatch(pattern, name):
                    dropped[name] = rule
        wanted = {step.theirs: step.shape for step in steps}
        constants = {step.theirs for step in steps if step.constant}
        aside = {*dropped, *apart}
        found = {n: h.shape for n, h in stored.shapes.items() if n not in aside}
        _refuse_foreign(stored.path, found, wanted)
        for name, shape in found.items():
            # A temperature is 0-d in one version of a library and 1-d in the next.
            if (shape, wanted.get(name)) in (((), (1,)), ((1,), ())):
                found[name] = wanted[name]
        kept = {n: shape for n, shape in wanted.items() if n in found or n not in constants}
        problems = mismatches(found, kept)
        problems["wrong dtype"] = [
            f"{name} is {stored.shapes[name].dtype}, expected a float"
            for name in wanted
            if name in found and stored.shapes[name].dtype not in FLOATS
        ]
        refuse(stored.path, problems)
    dropped |= {name: "constant" for name in constants if name in found}
    inside = (name for name, why in dropped.items() if not why.startswith(APART))
    ignored = tuple(dict.fromkeys((*stored.ignored, *sorted(inside))))
    return Translation(stored, [s for s in steps if not s.constant], ignored), dropped


def _refuse_foreign(path: str, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    for name in found:
        for pattern, what in _FOREIGN:
            if name not in wanted and re.search(pattern, name):
                raise ValueError(f"{path} is no SigLIP model: {name} is {what}")
