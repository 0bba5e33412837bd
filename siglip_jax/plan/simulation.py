"""A bulk job on many hosts, simulated: slow hosts, hosts that die, a store that throttles.

The processes do as `siglip_jax.jobs` does with `--shared`: each begins at a shard drawn at
random, holds the one in hand and the next, and takes over what another held once that has
shown no life for a while. A shard takes as long as its slowest side: reading, the cores of the
host (which its processes share), or the device. Nothing here imports jax.
"""

import dataclasses
import heapq
import math
from collections.abc import Sequence

import numpy as np

from siglip_jax.plan.shard_costs import ShardCosts

PATIENCE = 60.0  # as `jobs.claims` has it
_POLL = 1.0  # seconds between two looks of a process that waits
_PAUSES = (0.5, 2.0, 5.0)  # as `data.failures` has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the job runs on.

    Attributes:
      hosts: how many, each with so many `cores`, `processes` and bytes a second of `network`.
      parallel: cores that one process, and those that decode for it, keep busy at most.
      start: seconds until a process asks for its first shard, `start_cpu` of a core in them.
      slow_share, slow: hosts, and the speed of their cores as a share of the others'.
      deaths: of a process in an hour.
      replaced: seconds until another is there; infinite for never.
      store: bytes a second that the store gives to all of them; None for no limit.
      throttled: share of requests that the store refuses, and that are tried again.
      requests: of a shard.
      patience: seconds without a sign of life until a shard is taken over.
    """

    hosts: int = 1
    cores: float = 1
    processes: int = 1
    network: float = math.inf
    parallel: float = math.inf
    start: float = 0.0
    start_cpu: float = 0.0
    slow_share: float = 0.0
    slow: float = 1.0
    deaths: float = 0.0
    replaced: float = math.inf
    store: float | None = None
    throttled: float = 0.0
    requests: int = 1
    patience: float = PATIENCE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulated:
    """How a simulated job went.

    Attributes:
      seconds: from the start of its processes until all shards are done; infinite if all died.
      items: of the shards that are done.
      deaths: of processes.
      again: shards that were begun by a process that died, and done by another.
      bound: shards by the side that they waited for: "reading", "cores", "device".
    """

    seconds: float
    items: int
    deaths: int
    again: int
    bound: dict[str, int]

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds if self.seconds else 0.0


class _Process:
    def __init__(self, number: int, host: int, begin: int) -> None:
        self.number, self.host, self.begin = number, host, begin
        self.ahead = 0  # how far from `begin` all is done or held
        self.task: int | None = None  # shard in hand; -1 while it starts
        self.following: int | None = None
        self.left, self.speed, self.at = 0.0, 0.0, 0.0  # of the task: share, share a second, when
        self.version = 0
        self.alive, self.waiting = True, False
        self.looked: dict[int, float] = {}  # shards of dead processes, and when it saw them


def simulate(
    costs: ShardCosts,
    cluster: Cluster,
    *,
    seed: int = 0,
    kills: Sequence[tuple[float, int]] = (),
) -> Simulated:
    """Runs a job to its end.

    Args:
      costs: of the shards.
      kills: (second, number of a process): these die at that moment, beside those that
        `cluster.deaths` ends.

    Raises:
      ValueError: if the cluster has no host, core or process.

    >>> four = np.ones(4)
    >>> costs = ShardCosts(10 * four, 4.0 * four, four, 0 * four)
    >>> round(simulate(costs, Cluster(cores=2, parallel=1)).seconds, 3)  # all on one core
    16.0
    >>> round(simulate(costs, Cluster(cores=2, processes=2, parallel=1)).seconds, 3)
    8.0
    """
    if min(cluster.hosts, cluster.processes) < 1 or cluster.cores <= 0 or cluster.parallel <= 0:
        raise ValueError("a cluster needs a host, a core and a process at least")
    return _Run(costs, cluster, seed).to_the_end(kills)


class _Run:
    def __init__(self, costs: ShardCosts, cluster: Cluster, seed: int) -> None:
        self.cluster, self.count = cluster, len(costs.cpu)
        self.rng = np.random.default_rng(seed)
        self.items = costs.items
        self.cpu, self.device = costs.cpu.tolist(), costs.device.tolist()
        self.nbytes = costs.nbytes.tolist()
        self.stalls = self._stalls()
        slow = self.rng.random(cluster.hosts) < cluster.slow_share
        self.speed = np.where(slow, cluster.slow, 1.0).tolist()
        self.free = bytearray(self.count)  # 0 free, 1 held or done
        self.orphans: set[int] = set()
        self.undone, self.done_items = self.count, 0
        self.events: list[tuple[float, int, str, int, int]] = []
        self.serial = 0
        self.processes: list[_Process] = []
        self.of_host: list[set[int]] = [set() for _ in range(cluster.hosts)]
        self.bound = {"reading": 0, "cores": 0, "device": 0}
        self.side: list[str] = []
        self.now, self.deaths, self.again = 0.0, 0, 0

    def _stalls(self) -> list[float]:
        """Seconds that refused requests of each shard wait before they are tried again."""
        refused, total = self.cluster.throttled, np.zeros(self.count)
        for tries, pause in enumerate(_PAUSES, 1):
            if refused:
                total += pause * self.rng.binomial(
                    self.cluster.requests, refused**tries, self.count
                )
        return total.tolist()

    def _at(self, time: float, what: str, process: int, version: int = 0) -> None:
        self.serial += 1
        heapq.heappush(self.events, (time, self.serial, what, process, version))

    def _launch(self, host: int) -> None:
        begin = int(self.rng.integers(self.count))
        process = _Process(len(self.processes), host, begin)
        self.processes.append(process)
        self.side.append("cores")
        if self.cluster.deaths:
            life = self.rng.exponential(3600 / self.cluster.deaths)
            self._at(self.now + life, "dies", process.number)
        process.task = -1
        self._begin(process)

    def to_the_end(self, kills: Sequence[tuple[float, int]]) -> Simulated:
        for host in range(self.cluster.hosts):
            for _ in range(self.cluster.processes):
                self._launch(host)
        for time, number in kills:
            self._at(time, "dies", number)
        while self.undone and self.events:
            self.now, _, what, number, version = heapq.heappop(self.events)
            if what == "comes":
                self._launch(number)
                continue
            process = self.processes[number]
            if not process.alive or (what == "ends" and version != process.version):
                continue
            if what == "dies":
                self._die(process)
            elif what == "ends":
                self._end(process)
            else:
                self._next(process)
        return Simulated(
            seconds=self.now if not self.undone else math.inf,
            items=self.done_items,
            deaths=self.deaths,
            again=self.again,
            bound=self.bound,
        )

    def _begin(self, process: _Process) -> None:
        process.left, process.at, process.waiting = 1.0, self.now, False
        self.of_host[process.host].add(process.number)
        self._share(process.host)

    def _share(self, host: int) -> None:
        """Divides a host among the processes that are at work on it, from now on."""
        cluster, active = self.cluster, self.of_host[host]
        if not active:
            return
        # All of them can use as much as any other, so that fair is equal.
        cores = min(cluster.cores / len(active), cluster.parallel) * self.speed[host]
        network = cluster.network / len(active)
        if cluster.store is not None:
            network = min(network, cluster.store / sum(map(len, self.of_host)))
        for number in active:
            process = self.processes[number]
            process.left -= (self.now - process.at) * process.speed
            process.at = self.now
            if process.task == -1:
                seconds, side = max(cluster.start, cluster.start_cpu / cores), "cores"
            else:
                shard = process.task or 0
                reading = self.nbytes[shard] / network + self.stalls[shard]
                sides = (self.device[shard], "device"), (self.cpu[shard] / cores, "cores")
                seconds, side = max(*sides, (reading, "reading"))
            self.side[number] = side
            process.speed = 1 / max(seconds, 1e-9)
            process.version += 1
            end = self.now + max(process.left, 0.0) / process.speed
            self._at(end, "ends", number, process.version)

    def _leave(self, process: _Process) -> None:
        self.of_host[process.host].discard(process.number)
        self._share(process.host)

    def _end(self, process: _Process) -> None:
        shard = process.task
        if shard is not None and shard >= 0:
            self.undone -= 1
            self.done_items += int(self.items[shard])
            self.bound[self.side[process.number]] += 1
        process.task = process.following
        process.following = None
        self._next(process)

    def _next(self, process: _Process) -> None:
        """Holds two shards where there are two; looks again later where there is none."""
        idle = process.number not in self.of_host[process.host]
        if process.task is None or process.task == -1:
            process.task = self._claim(process)
        if process.task is None:
            if not idle:
                self._leave(process)
            if self.undone:
                self._at(self.now + min(self.cluster.patience / 6, _POLL), "looks", process.number)
            return
        if process.following is None:
            process.following = self._claim(process)
        self._begin(process)

    def _claim(self, process: _Process) -> int | None:
        """The next shard in this process's order that is free, or was held by a dead one."""
        count, begin = self.count, process.begin
        shard = -1
        first = begin + process.ahead
        if first < count:
            shard = self.free.find(0, first)
        if shard < 0:
            shard = self.free.find(0, max(first - count, 0), begin)
        ahead = (shard - begin) % count if shard >= 0 else count
        process.ahead = ahead
        for orphan in sorted(self.orphans, key=lambda one: (one - begin) % count):
            if (orphan - begin) % count > ahead:
                break
            seen = process.looked.setdefault(orphan, self.now)
            if self.now - seen > self.cluster.patience:
                self.orphans.discard(orphan)
                self.again += 1
                return orphan
        if shard < 0:
            return None
        self.free[shard] = 1
        return shard

    def _die(self, process: _Process) -> None:
        process.alive = False
        self.deaths += 1
        held = (process.task, process.following)
        self.orphans |= {shard for shard in held if shard is not None and shard >= 0}
        self._leave(process)
        if math.isfinite(self.cluster.replaced):
            self._at(self.now + self.cluster.replaced, "comes", process.host)
