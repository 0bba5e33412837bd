"""Several processes as one command, under `jax.distributed`: joined, watched, ended together."""

import contextlib
import os
import sys
import threading
import time
from typing import Any, NoReturn

from siglip_jax.cli.ending import exit_now

_BEAT = 1.0  # seconds between two signs of life
_SILENT = 20.0  # seconds without one until a process counts as gone
_TIMEOUT = 45  # seconds until jax itself ends a process that misses another
_FINISHED, _FAILED = "finished", "failed"
_FOLDER = "siglip_jax/processes/"
_peers: "Peers | None" = None


class Peers:
    """The other processes, each of which says once a second that it lives.

    jax ends a process with a stack trace in C++ some minutes after another one died. This ends
    it before, with a line that says which one, or when the others have failed.

    Args:
      client: jax's, of the store that all processes can read.
      index, count: which of how many processes this is.
    """

    def __init__(self, client: Any, index: int, count: int) -> None:
        self._client, self._index, self._count = client, index, count
        now = time.monotonic()
        self._seen = {str(n): ("", now) for n in range(count) if n != index}
        self._heard = now
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Waits for the reason of an error that another process may have caused."""
        self._over.wait(_SILENT + 5)

    def finish(self, code: int) -> NoReturn:
        """Ends this process; the first one last, since the others talk through it."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            self._tell(_FAILED if code else _FINISHED)
            if self._index == 0 and not code:
                self._wait_for_others()
        exit_now(code)

    def _wait_for_others(self) -> None:
        end = time.monotonic() + _SILENT
        while time.monotonic() < end:
            if all(value in (_FINISHED, _FAILED) for value in self._values().values()):
                time.sleep(_BEAT)  # until they have ended
                return
            time.sleep(0.1)

    def _watch(self) -> None:
        beat = 0
        while not self._over.wait(_BEAT):
            beat += 1
            now = time.monotonic()
            try:
                self._tell(str(beat))
                there = self._values()
            except Exception:
                if now - self._heard > _SILENT / 2:
                    self._lost("process 0, through which all talk, is gone")
                continue
            self._heard = now
            for name, (value, since) in self._seen.items():
                new = there.get(name, "")
                if new != value:
                    self._seen[name] = new, now
                elif new != _FINISHED and now - since > _SILENT:
                    silent = f"has not been heard of for {_SILENT:.0f} seconds"
                    self._lost(f"process {name} of {self._count} {silent}")
                if new == _FAILED:
                    self._lost(f"process {name} of {self._count} ended with an error")

    def _tell(self, value: str) -> None:
        self._client.key_value_set(f"{_FOLDER}{self._index}", value, allow_overwrite=True)

    def _values(self) -> dict[str, str]:
        """What the others said last."""
        found = self._client.key_value_dir_get(_FOLDER)
        values = {key.rpartition("/")[2]: value for key, value in found}
        return {name: values.get(name, "") for name in self._seen}

    def _lost(self, what: str) -> NoReturn:
        print(
            f"siglip-jax: error: {what}, and this one cannot go on without it; what is finished "
            "is kept, and the same command in all processes goes on behind it",
            file=sys.stderr,
            flush=True,
        )
        exit_now(2)


def join(distributed: bool) -> None:
    """Joins the other processes of `jax.distributed`, if asked to or the environment says so."""
    global _peers
    if not distributed and "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return
    import jax

    if jax.distributed.is_initialized():
        return
    # jax itself reads the address only; on pods and under Slurm it finds all three.
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    count, index = (int(os.environ[name]) if name in os.environ else None for name in names)
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        num_processes=count, process_id=index, heartbeat_timeout_seconds=_TIMEOUT
    )
    # jax says nowhere else how its processes can talk.
    from jax._src.distributed import global_state

    _peers = Peers(global_state.client, global_state.process_id, global_state.num_processes)


def settle() -> None:
    """After an error: ends this process with the reason, if another process is it."""
    if _peers is not None:
        _peers.settle()


def finish(code: int) -> int:
    """Ends a process that has joined others; `code` if it has not.

    No process waits at jax's own barrier, which makes an error of a job that is complete.
    """
    if _peers is not None:
        _peers.finish(code)
    return code
