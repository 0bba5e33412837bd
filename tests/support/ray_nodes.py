"""A cluster of Ray on this machine, two nodes with a chip each: a process that others talk to.

python ray_nodes.py    prints its address and the port for clients as JSON; "kill" on standard
input kills a process of an actor, if there is one, and "" ends the cluster

Chips are a resource of Ray's, of which jax sees nothing here.
"""

import json
import os
import random
import signal
import socket
import sys
from pathlib import Path

from ray.cluster_utils import Cluster


def descendants(pid):
    """Processes below one, by /proc."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found, waiting = [], [pid]
    while waiting:
        above = waiting.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        waiting += below
    return found


def actors():
    """Processes of actors that do shards."""
    for pid in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::ShardActor"):
            yield pid


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 0, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=2, resources={"TPU": 1})
    print(json.dumps({"address": cluster.address, "port": port}), flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            there = list(actors())
            if there:
                os.kill(random.choice(there), signal.SIGKILL)
            print(len(there), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
