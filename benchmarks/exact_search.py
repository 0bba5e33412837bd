"""Exact search: ours, faiss's flat index and usearch's exact search, in turns in one run.

    python benchmarks/exact_search.py [--rows N] [--width D] [--queries N ...] [--rounds N]

Seeded rows of norm 1, of which the nearest ten are found for several numbers of queries. All
systems run with as many threads as there are cores; each round runs every system once, one
after the other. Ours compile before the first round. For each number of queries:

    float32    `search.Searcher` with its rows resident, names of the hits included
    bfloat16   the same in half the memory, with exact re-ranking from the files
    faiss      IndexFlatIP.search
    usearch    usearch.index.search(exact=True) over the same matrix, 64 queries at a time,
               for it holds the products of all queries with all rows

Printed: the median time of float32, and for every system how many times as long it took, as
median and range of the rounds' ratios; then the share of the places that float64 finds which
it found. A folder of an embed job is written to a temporary folder, as large as the rows, and
memory for four times the rows is needed.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from usearch.index import MetricKind
from usearch.index import search as usearch_search

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.jobs.durable import write_json
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.jobs.sink import make_sink
from siglip_jax.scoring.rows import Prepared, Rows
from siglip_jax.search import Searcher, open_embeddings

K, SHARD = 10, 8192
OURS = "float32", "bfloat16"


def unit(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    rows = np.empty((count, width), np.float32)
    for start in range(0, count, SHARD):
        part = rows[start : start + SHARD]
        rng.standard_normal(dtype=np.float32, out=part)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def write_job(folder: Path, rows: np.ndarray) -> None:
    """The folder that an embed job with --format npy would have written."""
    job = Job(kind="embed", format="npy")
    manifest = Manifest(
        model="m",
        space={"weights": "w", "architecture": {}, "profile": {"name": "p"}}
        | {"width": rows.shape[1]},
        t=0.0,
        b=0.0,
        job=job.describe(),
        source={"identity": "random", "shards": -(-len(rows) // SHARD)},
    )
    folder.mkdir()
    write_json(folder / "manifest.json", dataclasses.asdict(manifest))
    sink, ledger = make_sink(folder, job, manifest), Ledger(folder)
    for number, start in enumerate(range(0, len(rows), SHARD)):
        part = rows[start : start + SHARD]
        shard = Rows(number, str(number))
        for place in range(start, start + len(part)):
            shard.add(Prepared(f"{place}.jpg"))
        files = sink.write(shard, {"embedding": part})
        ledger.write(number, str(number), len(part), [], files)


def best(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The places (n, K) that float64 finds."""
    near = np.empty((len(queries), 0))
    places = np.empty((len(queries), 0), np.int64)
    wide = queries.astype(np.float64)
    for start in range(0, len(rows), SHARD):
        part = wide @ rows[start : start + SHARD].astype(np.float64).T
        near = np.concatenate([near, part], axis=1)
        own = np.arange(start, start + part.shape[1])
        places = np.concatenate([places, np.tile(own, (len(queries), 1))], axis=1)
        order = np.argsort(-near, axis=1, kind="stable")[:, :K]
        near = np.take_along_axis(near, order, axis=1)
        places = np.take_along_axis(places, order, axis=1)
    return places


def systems(folder: Path, rows: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    threads = os.cpu_count() or 1
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    opened = open_embeddings(folder)
    whole = Searcher(opened, memory=rows.nbytes)
    halved = Searcher(opened, memory=rows.nbytes // 2)

    def ours(searcher: Searcher) -> Callable[[np.ndarray], np.ndarray]:
        return lambda queries: np.array([[hit.place for hit in h] for h in searcher(queries, K)])

    def usearch(queries: np.ndarray) -> np.ndarray:
        found = [
            usearch_search(rows, part, K, MetricKind.IP, exact=True, threads=threads).keys
            for part in np.array_split(queries, -(-len(queries) // 64))
        ]
        return np.concatenate([np.asarray(keys, np.int64).reshape(-1, K) for keys in found])

    made = {
        "float32": ours(whole),
        "bfloat16": ours(halved),
        "faiss": lambda queries: index.search(queries, K)[1],
        "usearch": usearch,
    }
    for name in OURS:  # the first search reads the files
        made[name](rows[:1])
    assert (whole.resident, halved.resident) == ("float32", "bfloat16")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8, 64, 1024])
    parser.add_argument("--rounds", type=int, default=7, help="at most 3 of 256 queries and more")
    given = parser.parse_args()
    keep_freed_memory()  # as `siglip-jax search` does, and for all systems
    rng = np.random.default_rng(0)
    rows = unit(rng, given.rows, given.width)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        write_job(folder, rows)
        run = systems(folder, rows)
        print(f"{given.rows:,} rows of {given.width}, {os.cpu_count()} cores")
        for count in given.queries:
            queries = unit(rng, count, given.width)
            seconds: dict[str, list[float]] = {name: [] for name in run}
            found: dict[str, np.ndarray] = {}
            for name in OURS:
                run[name](queries)
            for _ in range(given.rounds if count < 256 else min(given.rounds, 3)):
                for name, search in run.items():
                    start = time.perf_counter()
                    found[name] = search(queries)
                    seconds[name].append(time.perf_counter() - start)
            report(count, seconds, found, best(rows, queries))


def report(
    count: int,
    seconds: dict[str, list[float]],
    found: dict[str, np.ndarray],
    exact: np.ndarray,
) -> None:
    ours = seconds["float32"]
    print(f"{count:,} queries: float32 {1000 * statistics.median(ours):,.1f} ms")
    for name, own in seconds.items():
        ratios = sorted(theirs / mine for theirs, mine in zip(own, ours, strict=True))
        low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
        recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found[name], strict=True)])
        print(
            f"  {name:10}{middle:7.2f} ({low:.2f} to {high:.2f})   recall {recall:.5f}", flush=True
        )


if __name__ == "__main__":
    main()
