"""Checkpoints of a run, by orbax: written while training goes on, whole or not at all."""

import contextlib
import errno
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from siglip_jax.messages import reason
from siglip_jax.training import hosts
from siglip_jax.training.step import TrainState

_PATIENCE = 10.0  # seconds to close after a checkpoint that could not be written


class Checkpoints:
    """The folder of a run's checkpoints, one numbered folder a step.

    Args:
      folder: made if need be.
      keep: how many of the latest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        import orbax.checkpoint as ocp

        # orbax tells every file it touches, and of an error, which it then raises, many pages.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._ocp, self.folder = ocp, folder.absolute()
        self._begun: int | None = None
        self._failed = False
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,  # of a process that was killed
            ),
            item_names=("state", "data"),
        )

    @property
    def latest(self) -> int | None:
        """The last step that was saved whole."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: dict[str, Any]) -> None:
        """Begins to write; returns as soon as `state` may be changed.

        Raises:
          OSError: if this checkpoint or the one before it cannot be written.
        """
        if step == self.latest:
            return
        self.wait()
        self._begun = step
        with self._explained():
            args = self._ocp.args
            self._manager.save(
                step,
                args=args.Composite(state=args.StandardSave(state), data=args.JsonSave(data)),
                force=True,
            )

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          OSError: if it cannot be.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The latest whole state, with the shapes and shardings of `like`, and its data's place.

        A damaged checkpoint is passed over, with a warning, and set aside under another name.

        Raises:
          ValueError: if none can be read, or they are of another model.
        """
        broken: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._restored(step, like)
            except Exception as error:
                broken[step] = error
                continue
            self._set_aside(broken, step)
            return found
        step, error = next(iter(broken.items()))
        raise ValueError(
            f"{self.folder / str(step)}: the checkpoint cannot be read, or is of another model: "
            f"{reason(error)[:300]}; no other can be read; to begin anew, remove {self.folder}"
        ) from error

    def _restored(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        args = self._ocp.args
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        found = self._manager.restore(
            step,
            args=args.Composite(state=args.StandardRestore(shapes), data=args.JsonRestore()),
        )
        return found["state"], found["data"]

    def _set_aside(self, broken: dict[int, Exception], step: int) -> None:
        """Makes room for steps that are done again; what is damaged is kept under another name."""
        for wrong, error in broken.items():
            where = self.folder / str(wrong)
            aside = self.folder / f"{wrong}.damaged"
            if hosts.first():
                shutil.rmtree(aside, ignore_errors=True)
                where.rename(aside)
            warnings.warn(
                f"{where}: the checkpoint cannot be read ({reason(error)[:200]}); going on from "
                f"that of step {step}, and this one is now {aside.name}",
                stacklevel=4,
            )
        if broken:
            hosts.meet("set damaged checkpoints aside")
            self._manager.reload()

    def preempted(self, step: int) -> bool:
        """Whether any process of the job was told to stop; all agree on the step."""
        return bool(self._manager.reached_preemption(step))

    def close(self) -> None:
        """Waits, without a word: what went wrong, `save` or `wait` has told or will not matter.

        After a checkpoint that could not be written orbax may wait for minutes: not for it.
        """

        def close() -> None:
            with contextlib.suppress(Exception):
                self._manager.close()

        closing = threading.Thread(target=close, name="close checkpoints", daemon=True)
        closing.start()
        closing.join(_PATIENCE if self._failed else None)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            if not (said := _disk_error(error)):
                raise
            self._manager.reload()
            last = self.latest
            kept = f"the last whole one is step {last}" if last is not None else "there is none yet"
            raise OSError(
                f"{self.folder}: the checkpoint of step {self._begun} could not be written: "
                f"{said}; {kept}"
            ) from error


def _disk_error(error: BaseException) -> str | None:
    """What the disk said, wherever in a chain of errors it said it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.strerror
        # tensorstore has its own errors, which name the code only in their text.
        for text in ("No space left on device", "Disk quota exceeded", "Permission denied"):
            if text in str(seen):
                return text
        if f"errno={errno.ENOSPC}" in str(seen):
            return "No space left on device"
        seen = seen.__cause__ or seen.__context__
    return None
