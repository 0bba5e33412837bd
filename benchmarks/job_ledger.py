"""What a job's ledger costs when very much is done: seconds of a start, and of a report.

  python benchmarks/job_ledger.py [--shards 100000] [--url memory://bucket/out]

Makes the ledger and (sparse) files of that many shards in a temporary folder, as if all but one
were done, and the objects of the same ledger in a bucket. Nothing is computed.
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from statistics import median

from siglip_jax.jobs.bucket import BucketPath
from siglip_jax.jobs.bucket_ledger import BucketLedger
from siglip_jax.jobs.checked import damage
from siglip_jax.jobs.durable import json_bytes
from siglip_jax.jobs.entry import Entry
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.ledger_blocks import block_bytes, block_name, blocks

ITEMS, SIZE = 2048, 9_500_000  # of a shard: images, and bytes of their embeddings


@contextlib.contextmanager
def timed(what, seconds):
    begun = time.perf_counter()
    yield
    seconds.setdefault(what, []).append(time.perf_counter() - begun)


def entry(shard):
    name = f"shards/{shard:06d}.tar"
    file = {"path": f"data/{shard:05d}.parquet", "bytes": SIZE, "sha256": f"{shard:064x}"}
    errors = [{"key": f"{name}/{shard}", "error": "cannot be decoded: it ends too early"}] * 2
    return Entry(shard, name, ITEMS, len(errors), errors, [file], f"{shard:032x}", 0)


def on_a_disk(folder, shards, seconds):
    for name in ("ledger", "data"):
        (folder / name).mkdir()
    for shard in range(shards - 1):
        with (folder / f"data/{shard:05d}.parquet").open("wb") as file:
            file.truncate(SIZE)
        (folder / f"ledger/{shard:05d}.json").write_bytes(json_bytes(entry(shard)._asdict()))
    for _ in range(3):
        with timed("disk: start", seconds):
            ledger = Ledger(folder)
            entries = ledger.entries()
            assert not list(damage(folder, entries.values(), begun=True))
            assert len(ledger.entries()) == shards - 1
        with timed("disk: a look at what others did", seconds):
            ledger.look()
        with timed("disk: 1,000 reports", seconds):
            assert all(ledger.rows == ITEMS * (shards - 1) for _ in range(1000))


def in_a_bucket(url, shards, seconds):
    folder = BucketPath(url)
    whole = list(blocks(range(shards)))
    for block in whole:
        done = [entry(shard) for shard in block if shard < shards - 1]
        (folder / "ledger" / block_name(block)).write_bytes(block_bytes(done))
    for _ in range(3):
        with timed("bucket: start", seconds):
            ledger = BucketLedger(folder, shards)
            assert len(ledger.entries()) == shards - 1
    with timed("bucket: the entry of a shard", seconds):
        ledger.write(shards - 1, "last", ITEMS, [], [])
    return len(whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--url", default="memory://bucket/out")
    args = parser.parse_args()
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        on_a_disk(Path(folder), args.shards, seconds)
    objects = in_a_bucket(args.url, args.shards, seconds)
    print(f"{args.shards:,} shards of {ITEMS:,} items; in a bucket {objects:,} objects\n")
    for what, each in seconds.items():
        print(f"{what:<36}{median(each):9.4f} s ({min(each):.4f} to {max(each):.4f})")


if __name__ == "__main__":
    main()
