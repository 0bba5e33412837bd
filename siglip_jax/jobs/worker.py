"""One process of a job: shards in, files and ledger entries out, all sides at once.

Threads read and decode the shard in hand and the next, the main thread gives batches to the
device, one thread waits for what comes back and scores it, one writes.
"""

import collections
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from siglip_jax.config import Layer
from siglip_jax.data.error_share import ErrorShare
from siglip_jax.data.item import Item, Shard, Source, Stamped
from siglip_jax.jobs.claims import Claims, Turns
from siglip_jax.jobs.classes import Classes
from siglip_jax.jobs.labels import Labels
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.patches import rounded
from siglip_jax.jobs.progress import JobProgress
from siglip_jax.jobs.update import Rest
from siglip_jax.messages import counted
from siglip_jax.recent_rate import RecentRate
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.meter import SIDES, Meter
from siglip_jax.scoring.reading import Feed, Unreadable
from siglip_jax.scoring.rows import Prepared, Rows
from siglip_jax.scoring.scores import sigmoid

_WRITES = 2  # shards that wait to be written
UNREADABLE = 3  # shards that cannot be opened, after which the trouble is not theirs alone
# Seconds after which the items of a shard whose errors may pass are read a second time.
AGAIN = 15.0
_REPORTS = 0.2  # seconds between two
# Seconds between two looks at what other processes have done, and how many times as long as
# one takes there are at least.
_LOOKS, _SHARE = 10.0, 100


class Sink(Protocol):
    def write(self, rows: Rows, computed: dict[str, np.ndarray]) -> list[Any]: ...


class Worker:
    """Does shards until there is none left, or it is told to stop.

    Attributes:
      rotated: images of this run that carry an EXIF rotation, which is not applied.
      unreadable: what shards could not be opened, and why. They are not done.
    """

    def __init__(
        self,
        source: Source,
        scorer: Scorer,
        *,
        what: str,
        store: str,
        layer: Layer | None,
        labels: Labels | Classes | None,
        ledger: Ledger,
        sink: Sink,
        turns: Turns,
        stop: Callable[[], bool],
        errors: ErrorShare,
        threads: int,
        decode_processes: int,
        memory: int,
        report: Callable[[JobProgress], None],
    ) -> None:
        self.meter, self.unreadable, self.rotated = Meter(), list[str](), 0
        self._source, self._scorer, self._what, self._store = source, scorer, what, store
        self._layer = layer
        self._labels, self._ledger, self._sink, self._turns = labels, ledger, sink, turns
        self._stop, self._errors, self._report = stop, errors, report
        self._shards: Sequence[Shard] = source.shards()
        self._stamped = isinstance(source, Stamped | Rest)
        self._stamp: Callable[[int], str | None] = (
            source.stamp if isinstance(source, Stamped | Rest) else lambda shard: None
        )
        own = range(len(self._shards)) if ledger.own is None else ledger.own
        sizes = [shard.items for shard in self._shards[own.start : own.stop]]
        self._total = 0 if None in sizes else sum(size or 0 for size in sizes)
        # Half for images being decoded, a quarter for the files of each of two shards.
        self._classes = isinstance(labels, Classes)
        self._pipeline = scorer.pipeline(
            what,
            classes=self._classes,
            prepare=scorer.preparer(what, memory // 2, processes=decode_processes > 0),
            # Of processes each has a thread that waits for it.
            threads=decode_processes or threads,
            memory=memory // 2,
            meter=self.meter,
            layer=layer,
        )
        self._writer = ThreadPoolExecutor(1, "write")
        self._writes: collections.deque[Future[None]] = collections.deque()
        self._in_hand: dict[int, Rows] = {}
        self._stamps: dict[int, str | None] = {}
        self._rate = RecentRate()
        self._reported, self._look = 0.0, time.monotonic() + _LOOKS
        # Of what nobody else does there is nothing to learn.
        self._shared = isinstance(turns, Claims)

    def run(self) -> None:
        """Raises what any thread met with; what is finished by then is kept."""
        self._rate.begin(self._done())
        self._tell(now=True)
        try:
            begun = None if self._stop() else self._begin(wait=True)
            while begun is not None:
                following = None if self._stop() else self._begin(wait=False)
                self._process(*begun)
                if self._stop():
                    break
                begun = following
                if begun is None:
                    # Before waiting for others: they may wait for what we have not written.
                    self._settle()
                    begun = self._begin(wait=True)
            self._settle()
        except ErrorShare.Exceeded:
            self._settle()
            raise
        finally:
            self._pipeline.close()
            self._writer.shutdown(cancel_futures=True)
            self._turns.close()

    def _begin(self, *, wait: bool) -> tuple[Rows, Feed] | None:
        """Claims a shard and begins to read it."""
        shard = self._turns.next(wait=wait)
        if shard is None:
            return None
        rows = Rows(shard, self._shards[shard].name)
        if self._layer is not None:
            # As they come: a shard of patches may not fit into memory in float32.
            keep, store = rows.fill, self._store
            rows.fill = lambda z: keep((rounded(z[0], store),))
        # Before it is read: what is replaced meanwhile has another one then.
        self._stamps[shard] = self._stamp(shard)
        return rows, self._pipeline.read(self._items(shard))

    def _items(self, shard: int) -> Iterator[Item]:
        yield from self._source.read(shard)  # opened by the thread that reads

    def _process(self, rows: Rows, feed: Feed) -> None:
        self._in_hand[rows.shard] = rows

        def seen(item: Prepared) -> None:
            self._tell()
            self.rotated += item.rotated
            if item.error is not None:
                rows.back(1)  # nothing else will come back of it
                self._errors.add(item.key, item.error)
                self._errors.check(self._seen())

        try:
            self._pipeline.embed(feed, rows, seen)
            # A source of one's own may not read items by their keys.
            if self._stamped and rows.passing and self._waited(AGAIN):
                again = rows.again()
                self._errors.count -= len(again)
                feed = self._pipeline.read(self._source.read(rows.shard, again))
                self._pipeline.embed(feed, rows, seen)
        except Unreadable as error:
            self._give_up(feed, rows, str(error))
            return
        self._pipeline.then(lambda: self._finish(rows))
        while len(self._writes) > _WRITES:
            with self.meter.waiting(SIDES[2]):
                self._writes.popleft().result()

    def _waited(self, seconds: float) -> bool:
        """Whether that time has passed without a word to stop."""
        until = time.monotonic() + seconds
        while not self._stop() and time.monotonic() < until:
            time.sleep(min(seconds, 0.1))
        return not self._stop()

    def _give_up(self, feed: Feed, rows: Rows, reason: str) -> None:
        feed.close()
        self._in_hand.pop(rows.shard, None)
        self.unreadable.append(f"{rows.name}: {reason}" if rows.name not in reason else reason)
        self._turns.release(rows.shard)
        if len(self.unreadable) > UNREADABLE:
            self._settle()
            raise too_many_unreadable(self.unreadable)

    def _finish(self, rows: Rows) -> None:
        """A shard is back from the device: what is stored of it is computed, then written."""
        for index in rows.settle():
            self._errors.add(rows.items[index].key, rows.items[index].error or "")
            self._errors.check(self._seen())
        computed = self._computed(rows)
        self._writes.append(self._writer.submit(self._commit, rows, computed))

    def _computed(self, rows: Rows) -> dict[str, np.ndarray]:
        z = rows.embeddings(self._scorer.width(self._classes))
        if self._layer is not None:
            # Of no image at all there are no patches, in whatever type.
            return {"features": z[0] if z[0].ndim == 3 else rounded(z[0][:, None], self._store)}
        if self._what == "pairs":
            t, b = (np.asarray(self._scorer.params[name])[0] for name in ("t", "b"))
            logits = np.sum(z[0] * z[1], axis=1) * np.exp(np.float32(t)) + np.float32(b)
            return {"logit": logits, "probability": sigmoid(logits)}
        if self._labels is None:
            return {"embedding": z[0].astype(self._store)}
        asked = time.monotonic()
        computed = self._labels.computed(z[0])
        self.meter.computed(asked)
        return computed

    def _commit(self, rows: Rows, computed: dict[str, np.ndarray]) -> None:
        # Another process may have taken it over, thinking this one dead.
        if not self._ledger.done(rows.shard):
            try:
                files = self._sink.write(rows, computed)
                stamp = self._stamps.pop(rows.shard, None)
                name, count, passing = rows.name, len(rows.items), rows.passing
                self._ledger.write(rows.shard, name, count, rows.errors, files, stamp, passing)
            except FileNotFoundError:
                # It was, while we wrote, and has cleared away what was half written.
                if not self._ledger.done(rows.shard):
                    raise
        self._in_hand.pop(rows.shard, None)
        self._turns.release(rows.shard)

    def _settle(self) -> None:
        """Waits until all that was begun is written."""
        self._pipeline.drain()
        with self.meter.waiting(SIDES[2]):
            while self._writes:
                self._writes.popleft().result()
        self._tell(now=True)

    def _seen(self) -> int:
        """Items that were read, whether their results are back or not."""
        return self._ledger.rows + sum(len(rows.items) for rows in list(self._in_hand.values()))

    def _done(self) -> int:
        return self._ledger.rows + sum(rows.returned for rows in list(self._in_hand.values()))

    def _tell(self, *, now: bool = False) -> None:
        moment = time.monotonic()
        if not now and moment - self._reported < _REPORTS:
            return
        self._reported = moment
        if self._shared and moment > self._look:
            self._ledger.look()
            # Of a ledger that takes long to list it is done less often: a hundredth of the time.
            looked = time.monotonic()
            self._look = looked + max(_LOOKS, _SHARE * (looked - moment))
        done, rate = self._done(), self._rate
        rate.count(done)
        left = rate.seconds_left(self._total - done) if self._total else None
        errors, busy = self._errors.count, self.meter.busy
        self._report(JobProgress(done, self._total, errors, rate.value, busy, left))


def too_many_unreadable(unreadable: Sequence[str]) -> ValueError:
    """What ends a job more than `UNREADABLE` of whose shards cannot be opened."""
    return ValueError(
        f"{counted(len(unreadable), 'shard')} could not be opened; the last: {unreadable[-1]}; "
        "what is finished is kept, and the same command goes on"
    )
