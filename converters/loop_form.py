"""A checkpoint with one tensor per layer, however its layers are stored."""

from typing import Self

import numpy as np

from siglip_jax.weights.reader import Header, Reader
from siglip_jax.weights.routes import Route, reform


class LoopForm:
    """A view of an open checkpoint in loop form (see `weights.reader.Reader`).

    What is stored can still be read whole, under its stored name.

    A stacked tensor is read once and kept until each of its layers has been asked
    for. Ask for the layers of one tensor after each other: then no more is in memory
    than the tensors that are being taken apart.
    """

    subtree = ""

    def __init__(self, whole: Reader) -> None:
        self.path, self.ignored = whole.path, whole.ignored
        self._whole = whole
        shapes = {name: header.shape for name, header in whole.shapes.items()}
        self._routes: dict[str, Route] = {
            target: route
            for route in reform(shapes, scan_image=False, scan_text=False)
            for target in route.targets
        }
        self.shapes = {name: self._header(route) for name, route in self._routes.items()}
        self._stacks: dict[str, tuple[np.ndarray, set[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._stacks.clear()
        self._whole.close()

    def origin(self, name: str) -> tuple[str, int | None]:
        """The stored tensor that `name` is in, and which layer of it."""
        if name in self._whole.shapes:
            return name, None
        route = self._routes[name]
        return route.sources[0], route.targets.index(name)

    def dtype(self, name: str) -> np.dtype:
        """How `name` is stored."""
        return self._whole.shapes[self.origin(name)[0]].dtype

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; raises as the whole's own reader does."""
        source, layer = self.origin(name)
        if layer is None:
            return self._whole.read(source)
        if source not in self._stacks:
            self._stacks[source] = (self._whole.read(source), set(self._routes[name].targets))
        stack, left = self._stacks[source]
        left.discard(name)
        if not left:
            del self._stacks[source]
        return stack[layer]

    def _header(self, route: Route) -> Header:
        shape, dtype = self._whole.shapes[route.sources[0]]
        return Header(shape[1:], dtype) if route.how == "unstack" else Header(shape, dtype)
