"""A job by actors of Ray, of which one is killed, or its node, in the middle of a shard.

python ray_jobs.py {killed,lost_node} MODEL FOLDER    fails unless all is as one process writes it
"""

import sys
import threading
import time
import warnings
from pathlib import Path

import ray
from job_inputs import contents, pictures
from ray.cluster_utils import Cluster
from told_actors import Deadly, Doomed

from siglip_jax.jobs import embed

SHARDS, SIZE = 8, 3


def end_node(cluster, nodes, folder):
    """Kills the node that says so, with all that runs on it; another comes later."""
    while not (folder / "doomed").exists():
        time.sleep(0.05)
    doomed = (folder / "doomed").read_text()
    cluster.remove_node(next(n for n in nodes if n.node_id == doomed), allow_graceful=False)
    time.sleep(2)
    cluster.add_node(num_cpus=2, resources={"TPU": 1})


def main():
    what, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=2, resources={"TPU": 1}) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    if what == "lost_node":
        threading.Thread(target=end_node, args=(cluster, nodes, folder), daemon=True).start()
    items = pictures(SHARDS * SIZE).items
    deaths, kind = {"killed": ({1: 1, 4: 2}, Deadly), "lost_node": ({3: 1}, Doomed)}[what]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        source = kind(items, SIZE, folder, deaths)
        by_actors = embed(source, folder / "out", model=model, engine="ray")
    ray.shutdown()
    cluster.shutdown()
    said = [str(one.message) for one in caught if "is lost" in str(one.message)]
    print(*said, sep="\n")
    assert len(said) == sum(deaths.values()), said
    assert by_actors.finished and by_actors.items == SHARDS * SIZE
    alone = Deadly(items, SIZE, folder, {})
    assert embed(alone, folder / "alone", model=model).finished
    assert contents(folder / "out") == contents(folder / "alone")


if __name__ == "__main__":
    main()
