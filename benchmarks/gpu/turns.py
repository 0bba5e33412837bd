"""The turns of the contestants of one case: compared, then timed round after round."""

import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from contestants import Worker
from results import Results, one_line
from sizes import Case

# Embeddings of two systems in bfloat16 throughout; of a training step, its loss.
COSINE, LOSS = 1e-2, 2e-2


def seconds_of(results: Results, contestants: int) -> float:
    """What a case takes: a turn to find each best batch, and the rounds."""
    return contestants * results.scale.seconds * (results.scale.rounds + 2)


def take_turns(results: Results, case: Case, workers: Sequence[Worker], compare: bool) -> None:
    """Times each worker's best batch, and a batch of one where the case asks for it."""
    if compare:
        _compare(results, case, workers)
    best: dict[Worker, int] = {}
    for worker in workers:
        found = {}
        for batch in set(case.batches) & worker.prepared.keys():
            with results.attempt(f"{case.name}: {worker.contestant.name}, batch {batch}"):
                asked = {"batch": batch, "seconds": results.scale.seconds / 2}
                found[batch] = worker.ask(60, do="time", **asked)["rate"]
        if found:
            best[worker] = max(found, key=found.__getitem__)
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
            peak=_peak(worker),
        )
    if case.latency:
        _latencies(results, case, workers)


def _peak(worker: Worker) -> int | None:
    """Bytes of the device that it had at most; what it has cached is free again."""
    with contextlib.suppress(RuntimeError):
        return worker.ask(30, do="release")["peak"]
    return None


def _rounds(results: Results, case: Case, best: dict[Worker, int]) -> dict[Worker, list[float]]:
    """Rates of each at its best batch, in the order of the rounds."""
    rates: dict[Worker, list[float]] = {worker: [] for worker in best}
    for turn in range(results.scale.rounds):
        # In the other order every second time: what runs before leaves a warmer chip.
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
