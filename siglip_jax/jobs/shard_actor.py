"""An actor of Ray: a model, and a worker of a job that does the shards it is told to.

Nothing of Ray is imported here. Ray makes the class an actor, whose methods run in threads.
"""

import contextlib
import os
import secrets
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax.batch.worker_model import WorkerModel, loading, out_of_memory
from siglip_jax.data import ErrorShare
from siglip_jax.data.failures import SettingError
from siglip_jax.data.item import Item
from siglip_jax.jobs.assignments import Assignments, Outbox
from siglip_jax.jobs.entry import Entry
from siglip_jax.jobs.manifest import Manifest, read_manifest
from siglip_jax.jobs.space import ModelFacts
from siglip_jax.jobs.work import Work
from siglip_jax.jobs.worker import Worker
from siglip_jax.messages import reason
from siglip_jax.pretrained import Pretrained


class Loaded(NamedTuple):
    """What an actor says once it has its model.

    Attributes:
      host: that it runs on.
      warnings: of loading it.
    """

    facts: ModelFacts
    host: str
    warnings: list[str]


class Report(NamedTuple):
    """What became of a shard.

    Attributes:
      entry: for the ledger, None if it is not done.
      unreadable: why it cannot be opened.
      missing: path of an image in it that is not on this host.
      rotated: images with an EXIF rotation since the report before.
      meter: of the actor, from its beginning (`Meter.describe`).
      actor: a name of the actor's own.
      host: that it runs on.
    """

    entry: Entry | None
    unreadable: str | None
    missing: str | None
    rotated: int
    meter: dict[str, Any]
    actor: str
    host: str


class _Worker(Worker):
    """Notes images whose files are not on this host, by their shards."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.missing: dict[int, str] = {}
        super().__init__(*arguments, **options)

    def _items(self, shard: int) -> Iterator[Item]:
        for item in super()._items(shard):
            image = item.image
            if isinstance(image, str) and shard not in self.missing and not Path(image).exists():
                self.missing[shard] = image
            yield item


class ShardActor:
    """Does shards of a job, several at a time: one is read while another is computed.

    Args:
      model: what is to be loaded, or a function that loads it.
      folder: that the paths of the job are relative to.
    """

    def __init__(self, model: WorkerModel | Callable[[], Pretrained], folder: str) -> None:
        with contextlib.suppress(OSError):  # then they are found missing
            os.chdir(folder)
        self._model = model
        self._loaded: Pretrained | None = None
        self._lock, self._waiting = threading.Lock(), dict[int, Future[Report | None]]()
        self._stopped, self._ended = threading.Event(), False
        self._failed: BaseException | None = None
        self._name, self._rotated = secrets.token_hex(8), 0

    def load(self, recorded: dict[str, Any] | None) -> Loaded:
        """Loads the model; `recorded` as for `space_of`.

        Raises:
          ValueError: one line that names this host.
        """
        model = self._model
        name = getattr(model, "model", "the model")
        with loading(name), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._loaded = model.pretrained() if isinstance(model, WorkerModel) else model()
        said = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
        return Loaded(ModelFacts.of(self._loaded, recorded), socket.gethostname(), said)

    def begin(self, work: Work, manifest: Manifest, mark: str | None) -> None:
        """Begins to work, and waits for shards.

        Args:
          mark: file that the folder must have, None in a bucket.

        Raises:
          ValueError: one line that names this host.
        """
        assert self._loaded is not None
        self._batch_size = work.options.batch_size
        with self._errors():
            if mark is None:
                read_manifest(work.folder)
            elif not (work.folder / mark).exists():
                raise ValueError(
                    f"{work.folder} is not the folder that the command writes to; give one that "
                    "all nodes see, or one in a bucket"
                )
            self._outbox, self._turns = Outbox(work.folder), Assignments(self._released)
            self._worker: Any = work.worker(
                self._loaded,
                manifest,
                ledger=self._outbox,
                turns=self._turns,
                stop=self._stopped.is_set,
                errors=ErrorShare(1.0, errors=sys.maxsize),  # the command counts those of all
                kind=_Worker,
            )
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def do(self, shard: int) -> Report | None:
        """Does a shard, and comes back once it is done; None if it was told to stop before.

        Raises:
          ValueError: one line that names this host.
        """
        future = Future[Report | None]()
        with self._lock:
            if not self._ended:
                self._waiting[shard] = future
                self._turns.give(shard)
            elif self._failed is None:
                return None
            else:
                future.set_exception(self._failed)
        with self._errors():
            return future.result()

    def stop(self) -> None:
        """What is in hand is finished, and nothing else begun."""
        self._stopped.set()
        self._turns.end()

    def _work(self) -> None:
        failed: BaseException | None = None
        try:
            self._worker.run()
        except BaseException as error:
            failed = error
        with self._lock:
            self._ended, self._failed = True, failed
            for future in self._waiting.values():
                if failed is None:
                    future.set_result(None)
                else:
                    future.set_exception(failed)
            self._waiting.clear()

    def _released(self, shard: int) -> None:
        worker, entry = self._worker, self._outbox.take(shard)
        with self._lock:
            rotated, self._rotated = worker.rotated - self._rotated, worker.rotated
            report = Report(
                entry,
                worker.unreadable[-1] if entry is None else None,
                worker.missing.pop(shard, None),
                rotated,
                worker.meter.describe(),
                self._name,
                socket.gethostname(),
            )
            self._waiting.pop(shard).set_result(report)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of inputs and of memory are one line each, and say where they happened."""
        try:
            yield
        except (ValueError, OSError) as error:
            where = f"(on the worker {socket.gethostname()})"
            if isinstance(error, SettingError):
                told = f"{error.problem} {where}", error.setting, error.advice, error.value
                raise SettingError(*told) from error
            raise ValueError(f"{reason(error)} {where}") from error
        except Exception as error:
            if (told := out_of_memory(error, self._batch_size)) is not None:
                raise told from error
            raise
