"""Checks that share a process: most of their time is compiling, which threads do side by side."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from results import Results


def attempted(results: Results, tasks: Iterable[tuple[str, Callable[[], None]]]) -> None:
    """Every task, by name; one that fails is a row and ends no other."""

    def attempt(task: tuple[str, Callable[[], None]]) -> None:
        with results.attempt(task[0]):
            task[1]()

    with ThreadPoolExecutor(max(1, results.scale.workers // 2)) as pool:
        list(pool.map(attempt, tasks))
