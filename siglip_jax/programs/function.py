"""A jitted function on one CPU device whose first call comes soon, by a file of its program."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from siglip_jax.programs.cache import ShapeDtype, keep_program, read_program, surroundings
from siglip_jax.weights.tree import flatten

# XLA hands matmuls to YNNPACK, which prepares each of them when it first runs: 0.2 s a tower
# of B/16, for some 3% of the time of all later runs.
_OPTIONS: Any = {"xla_cpu_experimental_ynn_fusion_type": ""}


class QuickFunction:
    """What `jax.jit` gives, of weights and inputs, compiled to be run a few times, or for long.

    Its programs are kept in files beside jax's cache of compiled programs, where that is
    used, and are read without tracing the function again.

    Args:
      function: of a tree of weights, and of arrays or trees of arrays.
      key: from the shapes and dtypes of all its arguments to the name of the program.
      device: the one to run on.
      options: of `jax.jit`.
      long: it runs for long: compiled as `jax.jit` does.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        key: Callable[[Iterable[ShapeDtype]], str],
        device: Any,
        options: dict[str, Any],
        long: bool = False,
    ) -> None:
        # The function name is part of jax's cache key. A name of its own keeps jax from reading
        # the executable from its cache: XLA cannot serialize one that it has not compiled.
        function.__name__ = f"{function.__name__}_{surroundings()[:16]}"
        self._function = jax.jit(function, **options)
        self._key, self._device = key, device
        self._compiler_options: Any = {} if long else _OPTIONS
        self._programs: dict[tuple[ShapeDtype, ...], Callable[..., Any]] = {}

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """As that of a jitted function."""
        return self._function.lower(*arguments)

    def __call__(self, params: Any, *inputs: Any) -> Any:
        named = sorted(flatten(params).items())
        leaves = [*(leaf for _, leaf in named), *jax.tree.leaves(inputs)]
        arrays = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        if arrays not in self._programs:
            self._programs[arrays] = self._program(self._key(arrays), params, *inputs)
        return self._programs[arrays](params, *inputs)

    def _program(self, key: str, *arguments: Any) -> Callable[..., Any]:
        kept = read_program(key, self._device)
        if kept is not None:
            return kept
        lowered = self.lower(*arguments)
        try:
            compiled = lowered.compile(compiler_options=self._compiler_options)
        except Exception:  # XLA's options come and go; this one is not needed
            compiled = lowered.compile()
        keep_program(key, compiled, self._device, arguments)
        return compiled
