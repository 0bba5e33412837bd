"""Several processes as one command, under `jax.distributed`: joined, watched, ended together."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from siglip_jax.cli.ending import exit_now

_BEAT = 1.0  # seconds between two signs of life
_SILENT = 20.0  # seconds without one until a process counts as gone
_TIMEOUT = 45  # seconds until jax itself ends a process that misses another
_FINISHED, _FAILED = "finished", "failed"
_FIRST_GONE = "process 0, through which all talk, is gone"
_FOLDER = "siglip_jax/processes/"
_peers: "Peers | None" = None


class Peers:
    """The other processes, each of which says once a second that it lives.

    jax ends a process with a stack trace in C++ some minutes after another one died, and at once
    if the first did. This ends it before, or in its place, with a line that says which one, or
    when the others have failed.

    Args:
      client: jax's, of the store that all processes can read.
      index, count: which of how many processes this is.
      address: host:port of the first one.
    """

    def __init__(self, client: Any, index: int, count: int, address: str) -> None:
        self._client, self._index, self._count = client, index, count
        self._address, self._code = address, 0
        now = time.monotonic()
        self._seen = {str(n): ("", now) for n in range(count) if n != index}
        self._heard = now
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()
        if index:
            self._answer_aborts()

    def settle(self) -> None:
        """Waits for the reason of an error that another process may have caused."""
        self._over.wait(_SILENT + 5)

    def finish(self, code: int) -> NoReturn:
        """Ends this process; the first one last, since the others talk through it."""
        self._code = code
        self._over.set()
        # With an end of its own: what is asked of a process that hangs may take minutes.
        said = threading.Thread(target=self._say_so, daemon=True)
        said.start()
        said.join(_SILENT + 5)
        exit_now(code)

    def _say_so(self) -> None:
        self._thread.join()
        with contextlib.suppress(Exception):
            self._tell(_FAILED if self._code else _FINISHED)
            if self._index == 0 and self._code:
                time.sleep(2 * _BEAT)  # until they have heard it
            elif self._index == 0:
                self._wait_for_others()

    def _answer_aborts(self) -> None:
        """Where jax aborts the process since the first one is gone, ends it with a line."""
        libc = ctypes.CDLL(None)
        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)

        def aborted(number: int) -> None:
            # Python's own handlers run when the process is no more; this one runs in the thread
            # that aborts, which has nothing else to do.
            if self._over.is_set():
                exit_now(self._code)
            host, _, port = self._address.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), _BEAT).close()
                there = time.monotonic() - self._heard < _SILENT / 2
            except OSError:
                there = False
            if not there:
                self._lost(_FIRST_GONE)
            libc.signal(signal.SIGABRT, None)  # of another reason

        self._handler = handler(aborted)  # kept as long as it may be called
        libc.signal(signal.SIGABRT, self._handler)

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
                    self._lost(_FIRST_GONE)
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

    state = global_state
    assert state.coordinator_address is not None
    _peers = Peers(state.client, state.process_id, state.num_processes, state.coordinator_address)


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
