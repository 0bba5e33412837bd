"""What bounds an exact search with many queries: the matmul alone, and what is ranked after it.

    python benchmarks/search_blocks.py [--queries N] [--rows N] [--rounds N] [--keep]

Of 1,024 queries and rows of 768 in float32, in turns in every round: `jobs.top_k.TopK` as it
is; with other blocks of queries, chunks of rows and groups of neighbours; and the matmul alone,
of blocks of queries with chunks of 8,192 rows. `bfloat16` is the matmul with both sides rounded,
and sums in float32. Printed: the median of the rates, in GFLOP/s of the matmul, and the ratio to
`as it is` of the same round. `--keep`: with memory that is freed kept for later, as the command
line has it; without, as in a notebook.

Results: benchmarks/RESULTS.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.jobs import top_k
from siglip_jax.jobs.top_k import TopK, cut

WIDTH, K = 768, 10
AS_IT_IS = 256, 8192, 64
OTHERS = ((341, 8192, 64), (512, 8192, 64), (1024, 8192, 64), (256, 2048, 64), (256, 16384, 64),
          (256, 8192, 32), (256, 8192, 128))  # fmt: skip


def search(settings: tuple[int, int, int], rows: np.ndarray, queries: np.ndarray) -> Callable:
    block, chunk, group = settings
    top_k._QUERIES, top_k._GROUP = block, group  # read while it compiles
    top = TopK(K, chunk=chunk)
    chunks = [top.put(part) for part in cut(rows, chunk)]
    top(queries, chunks)
    return lambda: top(queries, chunks)


def matmul(block: int, rows: np.ndarray, queries: np.ndarray, dtype: str) -> Callable:
    """Products of every block with every chunk, of which no more than one is kept."""
    parts = [jnp.asarray(part, dtype) for part in cut(rows, AS_IT_IS[1])]
    asked = jnp.asarray(queries, dtype).reshape(-1, block, WIDTH)

    @jax.jit
    def products(asked: jax.Array, part: jax.Array) -> jax.Array:
        def of(some: jax.Array) -> jax.Array:
            near = jnp.matmul(
                part, some.T, precision="highest", preferred_element_type=jnp.float32
            ) if dtype == "bfloat16" else jnp.matmul(some, part.T, precision="highest")  # fmt: skip
            return near[:1, :1]  # reducing it would take longer than ranking does

        return jax.lax.map(of, asked)

    def run() -> None:
        for part in parts:
            made = products(asked, part)
        made.block_until_ready()

    run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="memory that is freed, for later")
    given = parser.parse_args()
    if given.keep:
        keep_freed_memory()
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((given.rows, WIDTH), dtype=np.float32)
    queries = rng.standard_normal((given.queries, WIDTH), dtype=np.float32)
    runs = {"as it is": search(AS_IT_IS, rows, queries)}
    for each in OTHERS:
        runs["{} queries, {:,} rows, groups of {}".format(*each)] = search(each, rows, queries)
    for block in (256, 512, 1024):
        runs[f"matmul alone, {block} queries"] = matmul(block, rows, queries, "float32")
    runs["matmul alone, 256 queries, bfloat16"] = matmul(256, rows, queries, "bfloat16")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    for name, each in seconds.items():
        ratios = sorted(first / own for first, own in zip(seconds["as it is"], each, strict=True))
        rate = 2 * given.queries * given.rows * WIDTH / statistics.median(each) / 1e9
        print(
            f"{name:40} {rate:4.0f} GFLOP/s   {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
