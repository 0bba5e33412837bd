"""Processes that prepare the images of a job, several in a request.

Threads share Python's lock, which each image holds for some 160 us, so that beyond eight cores more
threads bring less. Here a thread hands several items to a process, which reads, decodes and
resizes them, and gets what the model takes of them in memory that both see: 30 us of the lock an
image (benchmarks/decode_lock.py).

A request is a line of JSON, with the bytes of the files that are not on the disk behind it. The
answer is a line of JSON, too. Before it come lines that ask for memory of the budgets of this
process (`Lent`), which all share; each is answered by an empty line.
"""

import functools
import json
import os
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from siglip_jax.config import Siglip
from siglip_jax.data.item import Item
from siglip_jax.helper import Helper, Helpers
from siglip_jax.preprocessing import Profile
from siglip_jax.preprocessing.decode_process import Ended, Failed, end_of
from siglip_jax.preprocessing.example import Layout
from siglip_jax.scoring.budget import Budget
from siglip_jax.shared_slot import Slot

MOST = 8  # items in a request
_PROGRAM = "from siglip_jax.scoring.preparing_server import serve; serve()"


class Made(NamedTuple):
    """What a process says of an item; as of `Prepared`."""

    error: str | None
    passing: bool
    stamp: str | None
    width: int | None
    height: int | None
    rotated: bool
    grid: tuple[int, int] | None
    example: Any


class PreparingProcess(Helper):
    """One that prepares images as a `Preparer` of this process would.

    Args:
      settings: of that `Preparer`, pickled.
      layout: of what it makes.
    """

    def __init__(self, settings: bytes, layout: Layout) -> None:
        self._slot, self._layout = Slot(), layout
        # Before its first request.
        self._greeting = b"%d %d\n%s" % (self._slot.file, len(settings), settings)
        try:
            super().__init__(_PROGRAM, [self._slot.file])
        except OSError:
            self._slot.close()
            raise

    def prepare(self, items: Sequence[Item], budgets: dict[str, Budget]) -> list[Made]:
        """Of items whose images are paths or the bytes of files.

        Raises:
          Failed: if it ended, or took too long.
          Closed: if a budget is closed.
        """
        size = self._layout.size
        memory = self._slot.bytes(len(items) * size)
        held: list[tuple[Budget, int]] = []
        try:
            self._ask(items)
            while "made" not in (said := self._said()):
                budget, amount = budgets[said["of"]], int(said["amount"])
                if amount > 0:
                    budget.take(amount)
                    held.append((budget, amount))
                else:
                    held.remove((budget, -amount))
                    budget.give(-amount)
                self.send(b"\n")
        except (OSError, EOFError, ValueError) as error:
            raise end_of(self) from error
        finally:
            for budget, amount in held:
                budget.give(amount)
        answers = enumerate(said["made"])
        return [self._made(answer, memory[n * size :][:size]) for n, answer in answers]

    def _said(self) -> dict[str, Any]:
        return json.loads(self.answers.readline())

    def _ask(self, items: Sequence[Item]) -> None:
        images, blobs = list[int | str](), list[bytes]()
        for _, image, *_ in items:
            assert image is not None
            is_bytes = isinstance(image, bytes)
            images.append(len(image) if is_bytes else os.fspath(image))
            blobs += [image] if is_bytes else []
        asked = {"images": images, "stamps": [item.stamp for item in items]}
        self.send(self._greeting, json.dumps(asked).encode(), b"\n", *blobs)
        self._greeting = b""

    def _made(self, answer: Any, memory: Any) -> Made:
        made = Made(*answer, example=None)
        made = made if made.grid is None else made._replace(grid=(made.grid[0], made.grid[1]))
        return made if made.error else made._replace(example=self._layout.read(memory))

    def close(self) -> None:
        super().close()
        self._slot.close()


class Preparing:
    """Processes for as many threads as ask.

    Args:
      config, profile, memory: of `Preparer`.
      budgets: of this process, by the names under which `Preparer` has them.
    """

    def __init__(
        self,
        config: Siglip,
        profile: Profile,
        layout: Layout,
        memory: int,
        budgets: dict[str, Budget],
    ) -> None:
        settings = pickle.dumps((config, profile, memory))
        start = functools.partial(PreparingProcess, settings, layout)
        self.helpers, self._budgets = Helpers(start, kept=Failed), budgets

    def __call__(self, items: Sequence[Item]) -> list[Made]:
        """What is made of each, in order.

        A process that somebody ends is replaced, and each of its items tried alone, so that one
        which ends two processes costs no other.

        Raises:
          OSError: if no process can be started.
        """
        try:
            return self._asked(items)
        except Failed as error:
            if len(items) == 1 and not isinstance(error, Ended):
                return [_in_error(error)]
            return [self._alone(item) for item in items]

    def close(self) -> None:
        """Ends them, once nobody asks."""
        self.helpers.close()

    def _asked(self, items: Sequence[Item]) -> list[Made]:
        with self.helpers.one(len(items)) as process:
            return process.prepare(items, self._budgets)

    def _alone(self, item: Item) -> Made:
        try:
            return self._asked([item])[0]
        except Failed as error:
            return _in_error(error)


def _in_error(error: Failed) -> Made:
    return Made(str(error), False, None, None, None, False, None, None)
