"""Matmuls of one text: XLA's, which orders the weights in every call, beside oneDNN's.

    pip download --no-deps onednn-cpu-gomp==2023.2.0   # and unpack libdnnl.so.3 from it
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/packed_matmul.py --onednn libdnnl.so.3

oneDNN is called by its C interface, with weights as they are ("plain") and brought into the
order of its kernels beforehand ("packed"). Each turn multiplies with twelve matrices, as a
tower does, so that none stays in a cache. The time is that of the processor, which on one
thread another process changes little. Printed are medians, in GFLOP/s, and our share.

Results: benchmarks/RESULTS.md.
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = [(768, 768), (768, 3072), (3072, 768)]
LAYERS = 12
# Of oneDNN's C interface.
CPU, IN_ORDER, ALLOCATE = 1, 1, ctypes.c_size_t(-1).value
ANY, ROWS = 1, 3  # format tags
DTYPES = {"float32": (3, 3, 3), "int8": (6, 5, 4)}  # inputs, weights, outputs
WEIGHTS_OF = 131  # what a primitive is asked for the form of its weights by
SOURCE, WEIGHTS, RESULT = 1, 33, 17
Pointer = ctypes.c_void_p


class Argument(ctypes.Structure):
    _fields_ = (("index", ctypes.c_int), ("memory", Pointer))


class OneDnn:
    """As much of oneDNN as one matmul needs."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.dnnl_primitive_desc_query_md.restype = Pointer
        self._engine = self._made("engine_create", CPU, ctypes.c_size_t(0))
        self._stream = self._made("stream_create", self._engine, IN_ORDER)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"dnnl_{name}")(*arguments)
        if status:
            raise RuntimeError(f"dnnl_{name} gave {status}")

    def _made(self, name: str, *arguments: Any) -> Pointer:
        made = Pointer()
        self._call(name, ctypes.byref(made), *arguments)
        return made

    def _form(self, shape: tuple[int, ...], dtype: int, tag: int) -> Pointer:
        sides = (ctypes.c_int64 * 12)(*shape)
        return self._made("memory_desc_create_with_tag", len(shape), sides, dtype, tag)

    def _memory(self, form: Pointer, address: int) -> Pointer:
        return self._made("memory_create", form, self._engine, Pointer(address))

    def _run(self, primitive: Pointer, **memories: Pointer) -> None:
        order = {"source": SOURCE, "weights": WEIGHTS, "result": RESULT}
        each = [Argument(order[name], memory) for name, memory in memories.items()]
        given = (Argument * len(each))(*each)
        self._call("primitive_execute", primitive, self._stream, len(each), given)
        self._call("stream_wait", self._stream)

    def matmul(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, precision: str, packed: bool
    ) -> Callable[[], np.ndarray]:
        dtypes = DTYPES[precision]
        source, plain, result = (
            self._form(a.shape, dtype, ROWS) for a, dtype in zip((x, w, y), dtypes, strict=True)
        )
        form = self._form(w.shape, dtypes[1], ANY) if packed else plain
        what = self._made(
            "matmul_primitive_desc_create", self._engine, source, form, None, result, None
        )
        weights = self._memory(plain, w.ctypes.data)
        if packed:
            query = self._library.dnnl_primitive_desc_query_md
            own = Pointer(query(what, WEIGHTS_OF, 0))
            ordered = self._memory(own, ALLOCATE)
            engine = self._engine
            reorder = self._made("reorder_primitive_desc_create", plain, engine, own, engine, None)
            self._run(self._made("primitive_create", reorder), source=weights, result=ordered)
            weights = ordered
        primitive = self._made("primitive_create", what)
        memories = {
            "source": self._memory(source, x.ctypes.data),
            "weights": weights,
            "result": self._memory(result, y.ctypes.data),
        }

        def run() -> np.ndarray:
            self._run(primitive, **memories)
            return y

        return run


@jax.jit
def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """As `models.layers` multiplies on a CPU, float32 and 8 bits."""
    if x.dtype == jnp.float32:
        return jnp.matmul(x, w, precision="highest")
    return jax.lax.dot_general(
        x,
        w,
        (((1,), (0,)), ((), ())),
        precision=jax.lax.DotAlgorithmPreset.DEFAULT,
        preferred_element_type=jnp.int32,
    )


def operands(rows: int, shape: tuple[int, int], precision: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, shape[0])), rng.standard_normal((LAYERS, *shape))
    if precision == "int8":
        return np.uint8(128 + 20 * x.clip(-6, 6)), np.int8(20 * w.clip(-6, 6))
    return np.float32(x), np.float32(w)


def measure(dnnl: OneDnn, rows: int, shape: tuple[int, int], precision: str, turns: int) -> str:
    x, weights = operands(rows, shape, precision)
    y = np.empty((rows, shape[1]), np.int32 if precision == "int8" else np.float32)
    ours = [(jnp.asarray(x), jnp.asarray(w)) for w in weights]
    ways: dict[str, list[Callable[[], Any]]] = {
        "XLA": [lambda a=a: jax.block_until_ready(product(*a)) for a in ours],
        "plain": [dnnl.matmul(x, w, y, precision, packed=False) for w in weights],
        "packed": [dnnl.matmul(x, w, y, precision, packed=True) for w in weights],
    }
    results = [np.asarray(way[0]()).copy() for way in ways.values()]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-2)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            for way in ways[name]:
                way()
            seconds[name].append((time.process_time() - start) / LAYERS)
    operations = 2 * rows * shape[0] * shape[1] / 1e9
    rates = {name: operations / float(np.median(taken)) for name, taken in seconds.items()}
    cells = "  ".join(f"{name} {rate:4.0f}" for name, rate in rates.items())
    return f"{cells}  {rates['XLA'] / rates['packed']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onednn", type=Path, required=True, metavar="FILE", help="libdnnl.so.3")
    parser.add_argument("--rows", type=int, nargs="+", default=[64])
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    dnnl = OneDnn(args.onednn)
    for precision in DTYPES:
        for rows in args.rows:
            for shape in SHAPES:
                line = measure(dnnl, rows, shape, precision, args.turns)
                print(f"{precision:8} {rows:4} x {shape[0]:4} x {shape[1]:4}  {line}", flush=True)


if __name__ == "__main__":
    main()
