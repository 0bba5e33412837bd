"""Contestants that take turns: prepared at the same time, timed one after another.

While one is timed the others sleep, and round after round each has its turn, so that whatever
else the machine does hits all alike; a ratio is of two rates of the same round.
"""

import dataclasses
import importlib.util
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from results import Results, one_line
from sizes import Case


@dataclasses.dataclass(frozen=True)
class Contestant:
    """`options` are those of `Execution`, for siglip_jax; `environment` is added."""

    name: str
    system: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


class Worker:
    """A contestant's process for one case; see `worker`."""

    def __init__(self, contestant: Contestant, case: Case) -> None:
        self.contestant, self.case = contestant, case
        self.prepared: dict[int, dict[str, Any]] = {}
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("worker.py")),
                contestant.system,
                json.dumps(dataclasses.asdict(case)),
                json.dumps(contestant.options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | contestant.environment,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
          RuntimeError: if the request failed, or the process died or does not answer.
        """
        try:
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=max(0.0, timeout))
        except queue.Empty:
            self.close()
            raise RuntimeError(f"no answer to {request['do']} in {timeout:.0f} s") from None
        except OSError:
            line = ""
        if not line:
            raise RuntimeError(f"its process ended with code {self._process.wait(5)}")
        answer = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


Field = Sequence[tuple[Case, Sequence[Contestant]]]


def race(results: Results, field: Field, *, compare: bool = False) -> None:
    """Prepares all contestants of all cases, waits for the part's turn, and times them.

    Args:
      compare: also embed the same inputs, and check them against the first contestant's.
    """
    if results.platform == "tpu":
        # One process has all of a TPU: each contestant has it to itself, and no turns.
        for case, contestants in field:
            for each in contestants:
                _race(results, [(case, [each])], compare)
    else:
        _race(results, field, compare)


def _race(results: Results, field: Field, compare: bool) -> None:
    # In parallel because compiling takes most of the time; the most telling cases first.
    with ThreadPoolExecutor(results.scale.workers) as pool:
        made = [
            (case, [pool.submit(_prepare, results, case, each) for each in contestants])
            for case, contestants in field
        ]
        prepared = [(case, [f.result() for f in futures]) for case, futures in made]
    results.wait_for_turn()
    for case, workers in prepared:
        ready = [worker for worker in workers if worker is not None]
        with results.attempt(f"{case.name}: race", needs=_seconds(results, len(ready))) as enough:
            if enough and ready:
                _case(results, case, ready, compare)
        for worker in ready:
            worker.close()


def _prepare(results: Results, case: Case, contestant: Contestant) -> Worker | None:
    """A worker that has compiled the first batch, and as many others as time allows."""
    what = f"{case.name}: {contestant.name}"
    if reason := _absent(results, contestant.system):
        results.skipped(what, reason)
        return None
    worker = Worker(contestant, case)
    wanted = [case.batches[0], *([1] if case.latency else []), *case.batches[1:]]
    for batch in wanted:
        if worker.prepared and results.hurried() and not results.scale.rehearsal:
            break
        try:
            made = worker.ask(results.left(), do="prepare", batch=batch)
        except RuntimeError as error:
            results.failed(f"{what}, batch {batch}", one_line(error))
            continue
        worker.prepared[batch] = made
        results.measured(f"{what}, batch {batch}: prepared", batch=batch, **made)
    return worker if worker.prepared else None


def _absent(results: Results, system: str) -> str | None:
    """Why a system cannot take part, if it cannot."""
    if results.hurried() and not results.scale.rehearsal:
        return "no time left to prepare it"
    if system == "siglip_jax":
        return None
    if results.platform == "tpu":
        return "PyTorch has no TPU here"
    missing = [name for name in ("torch", system) if importlib.util.find_spec(name) is None]
    return f"{missing[0]} is not installed" if missing else None


def _seconds(results: Results, contestants: int) -> float:
    """What a case takes: a turn to find each best batch, and the rounds."""
    return contestants * results.scale.seconds * (results.scale.rounds + 2)


def _case(results: Results, case: Case, workers: Sequence[Worker], compare: bool) -> None:
    if compare:
        _compare(results, case, workers)
    best = {}
    for worker in workers:
        with results.attempt(f"{case.name}: {worker.contestant.name}, best batch"):
            rates = {
                batch: worker.ask(60, do="time", batch=batch, seconds=results.scale.seconds / 2)
                for batch in worker.prepared
                if batch in case.batches
            }
            best[worker] = max(rates, key=lambda batch: rates[batch]["rate"])
    rates = _rounds(results, case, best)
    first = next(iter(rates), None)
    for worker, mine in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[first], mine, strict=True)]
        results.measured(
            f"{case.name}: {worker.contestant.name}",
            case=case.name,
            system=worker.contestant.name,
            batch=best[worker],
            per_second=statistics.median(mine),
            first_is_times_as_fast=statistics.median(ratios),
            ratios=ratios,
            peak=worker.ask(30, do="release")["peak"],
        )
    if case.latency:
        _latencies(results, case, workers)


def _rounds(results: Results, case: Case, best: dict[Worker, int]) -> dict[Worker, list[float]]:
    """Rates of each at its best batch, in the order of the rounds."""
    rates: dict[Worker, list[float]] = {worker: [] for worker in best}
    for turn in range(results.scale.rounds):
        # None always follows the same neighbour, which leaves a warmer chip.
        for worker in list(best)[:: 1 if turn % 2 else -1]:
            asked = {"batch": best[worker], "seconds": results.scale.seconds}
            try:
                rates[worker].append(worker.ask(60, do="time", **asked)["rate"])
            except RuntimeError as error:
                results.failed(f"{case.name}: {worker.contestant.name}, timed", one_line(error))
                best.pop(worker), rates.pop(worker)
    return rates


def _latencies(results: Results, case: Case, workers: Sequence[Worker]) -> None:
    """Seconds of one example that is waited for, the contestants in turns."""
    found: dict[Worker, list[float]] = {}
    for _ in range(results.scale.rounds):
        for worker in workers:
            if 1 in worker.prepared:
                with results.attempt(f"{case.name}: {worker.contestant.name}, batch of one"):
                    each = worker.ask(60, do="latency", count=20)["latencies"]
                    found.setdefault(worker, []).extend(each)
    for worker, each in found.items():
        results.measured(
            f"{case.name}: {worker.contestant.name}, latency",
            case=case.name,
            system=worker.contestant.name,
            latency=statistics.median(each),
            latency_95=float(np.quantile(each, 0.95)),
        )


# Embeddings of two systems in bfloat16 throughout; of a training step, its loss.
COSINE, LOSS = 1e-2, 2e-2


def _compare(results: Results, case: Case, workers: Sequence[Worker]) -> None:
    """One embedding's distance from the first contestant's: the same model, or no race."""
    batch = case.batches[0]
    z: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, worker in enumerate(workers):
            name, file = worker.contestant.name, Path(folder) / f"{number}.npy"
            with results.attempt(f"{case.name}: {name}, embeddings"):
                worker.ask(60, do="embed", batch=batch, save=str(file))
                z[name] = np.load(file)
    first = next(iter(z), None)
    for name, theirs in z.items():
        if name == first:
            continue
        if case.tower == "training":
            apart, limit = abs(theirs[0] - z[first][0]) / abs(z[first][0]), LOSS
        else:
            apart, limit = 1 - (theirs * z[first]).sum(axis=1).min(), COSINE
        results.check(f"{case.name}: {name} is the same model as {first}", apart, limit)
