"""Races: contestants prepared at the same time, and timed one after another.

While one is timed the others sleep, and round after round each has its turn, so that whatever
else the machine does hits all alike; a ratio is of two rates of the same round.
"""

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from contestants import Contestant, Worker
from results import Results, one_line
from sizes import Case
from turns import seconds_of, take_turns

Field = Sequence[tuple[Case, Sequence[Contestant]]]


# What starting a process and compiling for a first batch takes, and for another one.
FIRST, MORE = 40, 25


def race(
    results: Results, field: Field, *, compare: bool = False, workers: int | None = None
) -> None:
    """Prepares all contestants of all cases, waits for the part's turn, and times them.

    Args:
      workers: how many prepare at the same time; half of the scale's unless given.
      compare: also embed the same inputs, and check them against the first contestant's.
    """
    workers = workers or max(1, results.scale.workers // 2)
    if results.platform == "tpu":
        # One process has all of a TPU: each contestant has it to itself, and no turns.
        for case, contestants in field:
            for each in contestants:
                _race(results, [(case, [each])], compare, 1)
    else:
        _race(results, field, compare, workers)


def _race(results: Results, field: Field, compare: bool, workers: int) -> None:
    started: list[Worker] = []
    # In parallel because compiling takes most of the time. The most telling cases first, and
    # all of them with one batch before any has another.
    with ThreadPoolExecutor(workers) as pool:
        pairs = [(case, each) for case, contestants in field for each in contestants]
        for worker in pool.map(lambda pair: _started(results, *pair), pairs):
            started += [worker] if worker is not None else []
        list(pool.map(lambda worker: _prepare_more(results, worker), started))
    results.wait_for_turn()
    for case, _ in field:
        ready = [worker for worker in started if worker.case == case]
        with results.attempt(f"{case.name}: race", needs=seconds_of(results, len(ready))) as enough:
            if enough and ready:
                take_turns(results, case, ready, compare)
        for worker in ready:
            worker.close()


def _started(results: Results, case: Case, contestant: Contestant) -> Worker | None:
    """A worker that has compiled its first batch; None, and a row, if there is none."""
    if reason := _absent(results, contestant.system):
        results.skipped(f"{case.name}: {contestant.name}", reason)
        return None
    worker = Worker(contestant, case)
    _prepare(results, worker, case.batches[0])
    if not worker.prepared:
        worker.close()
    return worker if worker.prepared else None


def _prepare_more(results: Results, worker: Worker) -> None:
    """Batches of one and of other sizes, as long as there is time."""
    case = worker.case
    for batch in (*((1,) if case.latency else ()), *case.batches[1:]):
        if results.may_prepare(MORE):
            _prepare(results, worker, batch)


def _prepare(results: Results, worker: Worker, batch: int) -> None:
    what = f"{worker.case.name}: {worker.contestant.name}, batch {batch}"
    try:
        made = worker.ask(results.left(), do="prepare", batch=batch)
    except RuntimeError as error:
        results.failed(what, one_line(error))
        return
    worker.prepared[batch] = made
    results.measured(f"{what}: prepared", batch=batch, **made)


def _absent(results: Results, system: str) -> str | None:
    """Why a system cannot take part, if it cannot."""
    if not results.may_prepare(FIRST):
        return "no time left to prepare it"
    if system == "siglip_jax":
        return None
    if results.platform == "tpu":
        return "PyTorch has no TPU here"
    missing = [name for name in ("torch", system) if importlib.util.find_spec(name) is None]
    return f"{missing[0]} is not installed" if missing else None
