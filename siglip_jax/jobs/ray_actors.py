"""The shards of a job done by actors of Ray: this process hands them out and keeps the ledger.

Ray finds places for actors and says when one is lost, with its process or its node. Another takes
its place then, and its shards go to whichever actor is free.
"""

import collections
import contextlib
import dataclasses
import os
import secrets
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

from siglip_jax.activity import activity
from siglip_jax.batch.worker_model import WorkerModel
from siglip_jax.data import ErrorShare
from siglip_jax.jobs.bucket import KEPT
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.jobs.options import unreported
from siglip_jax.jobs.own_process import Ran
from siglip_jax.jobs.ray_cluster import cause, connected, places
from siglip_jax.jobs.ray_records import RayRecords
from siglip_jax.jobs.shard_actor import Loaded, ShardActor
from siglip_jax.jobs.space import ModelFacts
from siglip_jax.jobs.work import Work
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring.preparation import warn_of_rotation

_IN_HAND = 3  # shards of an actor: one is read, one computed, one written
_TRIES = 4  # of a shard whose actor dies, and of actors that die before they have one
_WAIT = 0.2  # seconds between two reports, and two looks for a signal
_GROWS = 10.0  # seconds between two looks for nodes that have come


@dataclasses.dataclass(eq=False)
class _Member:
    """An actor: what it was asked for, and which shards it has."""

    handle: Any
    loaded: bool = False
    asked: bool = False
    begun: bool = False
    shards: set[int] = dataclasses.field(default_factory=set)


@contextlib.contextmanager
def ray_actors(
    engine: str, model: Pretrained | str | Callable[[], Pretrained]
) -> Generator["RayActors", None, None]:
    """Actors on a cluster, which are gone when the block ends.

    Raises:
      ValueError: if Ray is not installed or does not answer, or the model is loaded already.
    """
    # One that is loaded already is refused there.
    named: Any = model if callable(model) else WorkerModel.of(cast(Any, model))
    with connected(engine) as ray:
        actors = RayActors(ray, named)
        try:
            yield actors
        finally:
            actors.close()


class RayActors:
    """Does shards by actors; see `OwnProcess`, which does so by itself."""

    def __init__(self, ray: Any, model: WorkerModel | Callable[[], Pretrained]) -> None:
        self._ray, self._model = ray, ray.put(model)
        self._members: list[_Member] = []
        # What is waited for: who was asked, for what, and for which shard.
        self._calls: dict[Any, tuple[_Member, str, int]] = {}
        self._facts: ModelFacts | None = None
        self._recorded: dict[str, Any] | None = None
        self._work: tuple[Any, ...] | None = None
        self._todo = collections.deque[int]()
        self._deaths: collections.Counter[int | None] = collections.Counter()
        self._grown = 0.0

    def facts(
        self, recorded: dict[str, Any] | None, shards: int, stop: Callable[[], bool]
    ) -> ModelFacts:
        """What the first actor says that has loaded the model.

        Raises:
          ValueError: one line, if one cannot load it; names the host.
          KeyboardInterrupt: if it was told to stop before.
        """
        self._recorded = recorded
        with activity("waiting for an actor of Ray that has loaded the model"):
            while self._facts is None:
                if stop():
                    raise KeyboardInterrupt
                self._grow(shards)
                self._step(stop)
        return self._facts

    def run(
        self,
        work: Work,
        todo: Sequence[int],
        manifest: Manifest,
        *,
        ledger: Ledger,
        errors: ErrorShare,
        stop: Callable[[], bool],
    ) -> Ran:
        """Has all shards of `todo` done.

        Raises:
          ValueError: one line: an actor met with what ends a job, or died too often.
        """
        self._job, self._names = work, [shard.name for shard in work.source.shards()]
        self._records = RayRecords(work, ledger, errors)
        self._todo.extend(todo)
        with _marked(work.folder) as mark:
            options = dataclasses.replace(work.options, report=unreported)
            folder = work.folder.absolute() if isinstance(work.folder, Path) else work.folder
            told = self._put(work._replace(options=options, folder=folder))
            self._work = told, manifest, mark
            told_to_stop = False
            try:
                while True:
                    if stop() and not told_to_stop:
                        told_to_stop = True
                        self._stop()
                    if not stop():
                        self._grow(len(self._todo) + self._in_hand())
                        self._give()
                    work.options.report(self._records.progress())
                    if not self._in_hand() and (stop() or not self._todo):
                        break
                    self._step(stop)
            finally:
                warn_of_rotation(self._records.rotated)
        return self._records.ran()

    def close(self) -> None:
        """Ends all actors, with whatever they have in hand."""
        for member in self._members:
            self._end(member)

    def _put(self, work: Work) -> Any:
        try:
            return self._ray.put(work)
        except Exception as error:  # cloudpickle raises whatever it is told
            name = type(work.source).__name__
            raise ValueError(
                f"a {name} cannot be pickled, so that actors of Ray cannot have it: {error}"
            ) from error

    def _in_hand(self) -> int:
        return sum(len(member.shards) for member in self._members)

    def _grow(self, most: int) -> None:
        """As many actors as the cluster has room for, and there are shards."""
        now = time.monotonic()
        if self._grown and now - self._grown < _GROWS:
            return
        self._grown = now
        count, self._options = places(self._ray)
        while len(self._members) < min(count, most):
            self._add()

    def _add(self) -> None:
        remote = self._ray.remote(max_concurrency=_IN_HAND + 1, **self._options)(ShardActor)
        member = _Member(remote.remote(self._model, str(Path.cwd())))
        self._members.append(member)
        self._call(member, "load", self._recorded)

    def _call(self, member: _Member, what: str, *arguments: Any, shard: int = -1) -> None:
        ref = getattr(member.handle, what).remote(*arguments)
        self._calls[ref] = member, what, shard

    def _give(self) -> None:
        """Has actors begin that have the model, and gives shards to those that have begun."""
        # The first embeds the labels alone, which others then find in the folder.
        first = not any(member.asked for member in self._members)
        alone = bool(self._job.job.labels) and not any(member.begun for member in self._members)
        for member in self._members:
            if member.loaded and not member.asked and (first or not alone):
                member.asked, first = True, False
                self._call(member, "begin", *(self._work or ()))
        for _ in range(_IN_HAND):  # one each, before any has two
            for member in self._members:
                if member.begun and self._todo and len(member.shards) < _IN_HAND:
                    shard = self._todo.popleft()
                    member.shards.add(shard)
                    self._call(member, "do", shard, shard=shard)

    def _stop(self) -> None:
        for member in self._members:
            if member.shards:
                member.handle.stop.remote()

    def _step(self, stop: Callable[[], bool]) -> None:
        """Waits a little for an answer."""
        errors = self._ray.exceptions
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_WAIT)
        for ref in ready:
            member, what, shard = self._calls.pop(ref)
            try:
                value = self._ray.get(ref)
            except errors.RayTaskError as error:
                raise error.cause from error
            except errors.RayError as error:
                self._lost(member, error, stop)
            else:
                self._answered(member, what, shard, value)

    def _answered(self, member: _Member, what: str, shard: int, value: Any) -> None:
        if what == "load":
            member.loaded = True
            self._take_facts(value)
        elif what == "begin":
            member.begun = True
        else:
            member.shards.discard(shard)
            self._deaths[None] = 0  # actors live long enough
            if value is None:  # it was told to stop before
                self._todo.append(shard)
            else:
                self._records.add(value)

    def _take_facts(self, loaded: Loaded) -> None:
        if self._facts is None:
            self._facts = loaded.facts
            for said in loaded.warnings:
                warnings.warn(said, stacklevel=2)
        elif loaded.facts.space != self._facts.space:
            raise ValueError(
                f"the model {loaded.facts.name} is another on the worker {loaded.host} than on the "
                "one before; give all nodes the same files"
            )

    def _lost(self, member: _Member, error: Exception, stop: Callable[[], bool]) -> None:
        """Replaces an actor that is no more, and has its shards done by others."""
        if member not in self._members:
            return
        self._members.remove(member)
        self._end(member)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] is not member}
        why = cause(error)
        if getattr(error, "actor_init_failed", False):
            raise ValueError(f"an actor of Ray cannot begin: {why.rpartition('  ')[2]}") from error
        for shard in member.shards or {None}:
            self._deaths[shard] += 1
            if self._deaths[shard] >= _TRIES:
                what = "before it had a shard"
                if shard is not None:
                    what = f"with {self._names[shard]} in hand"
                raise ValueError(
                    f"an actor of Ray has died {_TRIES} times {what} ({why}); {KEPT}"
                ) from error
        self._todo.extendleft(sorted(member.shards, reverse=True))
        warnings.warn(f"an actor of Ray is lost, and another does its shards ({why})", stacklevel=2)
        if not stop():
            self._add()

    def _end(self, member: _Member) -> None:
        # It may be gone already, or the cluster with it.
        with contextlib.suppress(Exception):
            self._ray.kill(member.handle)


@contextlib.contextmanager
def _marked(folder: Any) -> Generator[str | None, None, None]:
    """A file in the folder that tells it from others of its name on other nodes."""
    if not isinstance(folder, Path):
        yield None
        return
    name = f".ray-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    (folder / name).touch()
    try:
        yield name
    finally:
        (folder / name).unlink(missing_ok=True)
