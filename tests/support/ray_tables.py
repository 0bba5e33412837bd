"""Ray Data over a local cluster of nodes with a chip each; actors and a node die in the middle.

python ray_tables.py {left_alone,killed,lost_node,memory} FOLDER    fails if a row is not there

Chips are a resource of Ray's, of which jax sees nothing here.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import engine_rows
import pyarrow
import ray
from ray.cluster_utils import Cluster

from siglip_jax.batch import ImageEmbedder

BALLOON = 6 << 30  # bytes


class Told(ImageEmbedder):
    """Does to itself what the test says, once, in the middle; notes each batch."""

    def __init__(self, folder, what, **options):
        super().__init__(engine_rows.MODEL, **options)
        self.folder, self.what, self.calls = Path(folder), what, 0

    def __call__(self, batch):
        self.calls += 1
        made = super().__call__(batch)
        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"{node}-{os.getpid()}-{self.calls}").touch()
        if self.calls == 2 and self._first():
            if self.what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "lost_node":
                (self.folder / "doomed").write_text(node)
                time.sleep(600)
            if self.what == "memory":
                held = []
                while sum(map(len, held)) < BALLOON:
                    held.append(b"x" * (64 << 20))
                time.sleep(600)
        return made

    def _first(self):
        try:
            (self.folder / "done").mkdir()
        except FileExistsError:
            return False
        return True


def end_node(cluster, nodes, folder):
    """Kills the node that says so, with all that runs and lies on it; another comes later."""
    while not (folder / "doomed").exists():
        time.sleep(0.1)
    time.sleep(0.5)
    doomed = (folder / "doomed").read_text()
    cluster.remove_node(next(n for n in nodes if n.node_id == doomed), allow_graceful=False)
    cluster.add_node(num_cpus=2, resources={"TPU": 1})


def main():
    what, folder = sys.argv[1], Path(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=2, resources={"TPU": 1}) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    if what == "lost_node":
        threading.Thread(target=end_node, args=(cluster, nodes, folder), daemon=True).start()
    # Blocks of more than 100 kB lie on the node that made them, and are lost with it.
    data = ray.data.from_items(engine_rows.rows(padding=20_000), override_num_blocks=12)
    made = data.map_batches(
        Told,
        fn_constructor_args=[str(folder), what],
        fn_constructor_kwargs={"batch_size": engine_rows.SIZE, "keep": ["key", "padding"]},
        batch_size=engine_rows.SIZE,
        batch_format="pyarrow",
        num_cpus=1,
        resources={"TPU": 1},
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    table = pyarrow.concat_tables(ray.get(made.to_arrow_refs()))
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 192)
    columns = [table[name].to_pylist() for name in ("key", "embedding", "error")]
    ray.shutdown()
    cluster.shutdown()
    engine_rows.check(*columns)
    assert (folder / "done").exists()
    if what == "lost_node":
        assert (folder / "doomed").exists()
    pids = {path.name.split("-")[1] for path in folder.glob("*-*-*")}
    print(len(pids), "processes")


if __name__ == "__main__":
    main()
