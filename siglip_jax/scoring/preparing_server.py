"""The process that prepares what `preparing` asks it for, one request after another."""

import functools
import json
import pickle
import signal
import sys
from typing import Any, BinaryIO

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.data.item import Item
from siglip_jax.scoring.budget import Budget
from siglip_jax.scoring.preparation import Preparer
from siglip_jax.scoring.rows import Prepared
from siglip_jax.shared_slot import Slot

SHARE = 4 << 20  # bytes that a process holds without asking


class Lent(Budget):
    """A budget of the process that asks, of which more than `SHARE` is asked for.

    Here one thread holds one amount at a time.
    """

    def __init__(self, name: str, limit: int, read: BinaryIO, write: BinaryIO) -> None:
        super().__init__(limit)
        self._name, self._read, self._write = name, read, write

    def take(self, amount: int) -> None:
        self._ask(amount)

    def give(self, amount: int) -> None:
        self._ask(-amount)

    def _ask(self, amount: int) -> None:
        if abs(amount) > SHARE:
            said = json.dumps({"of": self._name, "amount": amount})
            self._write.write(said.encode() + b"\n")
            self._write.flush()
            if not self._read.readline():
                raise SystemExit  # nobody asks any more


def serve() -> None:
    """Answers requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    keep_freed_memory()  # one image is like the next
    read, write = sys.stdin.buffer, sys.stdout.buffer
    file, size = map(int, read.readline().split())
    config, profile, memory = pickle.loads(read.read(size))
    lent = functools.partial(Lent, read=read, write=write)
    prepare, slot = Preparer("images", config, profile, memory=memory, budget=lent), Slot(file)
    size = prepare.layout.size
    while line := read.readline():
        asked = json.loads(line)
        items = [
            Item("", read.read(image) if isinstance(image, int) else image, stamp=stamp)
            for image, stamp in zip(asked["images"], asked["stamps"], strict=True)
        ]
        room = slot.bytes(len(items) * size)
        made = list[list[Any]]()
        for number, item in enumerate(items):
            done = prepare(item)
            if done.error is None:
                prepare.layout.write(room[number * size :][:size], done.example)
            made.append(_facts(done))
        write.write(json.dumps({"made": made}).encode() + b"\n")
        write.flush()


def _facts(done: Prepared) -> list[Any]:
    """As `preparing.Made` has them, without the example."""
    about = [done.error, done.passing, done.stamp, done.width, done.height, done.rotated]
    return [*about, done.grid]
