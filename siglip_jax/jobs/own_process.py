"""The shards of a job done by this process, which may share them with others."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from siglip_jax.data import ErrorShare
from siglip_jax.jobs.claims import AllMine, Claims, Turns
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.jobs.space import ModelFacts
from siglip_jax.jobs.work import Work
from siglip_jax.pretrained import Pretrained, load
from siglip_jax.programs import make_mesh
from siglip_jax.scoring.preparation import warn_of_rotation


class Ran(NamedTuple):
    """What came of a run, beside what is in the ledger.

    Attributes:
      unreadable: shards that could not be opened, and why.
      meter: how fast it was, see `JobResult.run`.
    """

    unreadable: tuple[str, ...]
    meter: dict[str, Any]


class OwnProcess:
    """Does shards on the devices of this process.

    Args:
      model: what is loaded, a name, or a function that loads it once it is needed.
      claims: other processes work on the same folder, and claim shards as this one does.
    """

    def __init__(self, model: Pretrained | str | Callable[[], Pretrained], *, claims: bool) -> None:
        self._model, self._claims = model, claims

    def facts(
        self, recorded: dict[str, Any] | None, shards: int, stop: Callable[[], bool]
    ) -> ModelFacts:
        """Loads the model; the manifest's facts of it.

        Args:
          recorded: the space of the job that the folder holds, None if there is none yet.
          shards: of the source.
        """
        model = self._model
        if not isinstance(model, Pretrained):
            local = make_mesh(jax.local_devices())
            model = self._model = load(model, mesh=local) if isinstance(model, str) else model()
        return ModelFacts.of(model, recorded)

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
        """Does the shards of `todo`, or those of them that no other process does.

        Raises:
          ValueError, OSError: what any of its threads met with; what is finished is kept.
        """
        assert isinstance(self._model, Pretrained)  # facts are asked for first
        turns: Turns = AllMine(list(todo))
        if self._claims and isinstance(work.folder, Path):
            # Processes begin at different places, and seldom ask for the same shard.
            begin = int.from_bytes(os.urandom(4)) % max(len(todo), 1)
            order = [*todo[begin:], *todo[:begin]]
            turns = Claims(work.folder, ledger, order, stop, work.options.patience)
        worker = work.worker(
            self._model, manifest, ledger=ledger, turns=turns, stop=stop, errors=errors
        )
        try:
            worker.run()
        finally:
            warn_of_rotation(worker.rotated)
        return Ran(tuple(worker.unreadable), worker.meter.describe())
