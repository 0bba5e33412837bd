"""How a command ends before its time: Ctrl-C once, twice, and threads that would outlive it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Self

from siglip_jax.stop import promised
from siglip_jax.weights.staging import remove_unfinished

INTERRUPTED = 130
_GRACE = 1.0  # seconds that a second signal leaves for ending in order
_LAST = 5.0  # seconds that threads have once an error ended the command
_PLAIN = "what was begun is given up, and nothing half written stays"
_AGAIN = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interrupts:
    """Answers Ctrl-C at once, whatever the command is busy with, while the block runs.

    Python runs the handler of a signal between two of its own steps, which may be a minute of
    compiling away. So a thread is told of each signal too: it says what the command will do,
    and at the second one ends the process if the command does not end by itself.

    Args:
      close: removes the progress from the terminal.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close, self._ended = close, threading.Event()
        self._raised, self._before, self._thread = False, None, None
        self.said = False

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.signal(signal.SIGINT, self._raise)
        self._former = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="interrupts", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread is None:
            return
        self._ended.set()
        signal.set_wakeup_fd(self._former)
        signal.signal(signal.SIGINT, self._before)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        # A second one must not interrupt the clearing up after the first.
        if not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def _listen(self) -> None:
        heard = 0
        while numbers := os.read(self._read, 1):
            if numbers[0] not in _AGAIN:
                continue
            heard += 1
            number = signal.Signals(numbers[0])
            if heard == 1:
                self._answer(number)
            else:
                self._end(number)

    def _answer(self, number: signal.Signals) -> None:
        self.said = True
        self._say(f"{promised() or _PLAIN}; {_AGAIN[number]} again stops now")

    def _end(self, number: signal.Signals) -> None:
        if not self._ended.wait(_GRACE):
            self._say("stopped")
            self._close()
            remove_unfinished()
            exit_now(128 + number)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"siglip-jax: {text}", file=sys.stderr, flush=True)


def exit_now(code: int) -> NoReturn:
    """Ends the process without waiting for its threads."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def leave(code: int) -> int:
    """Has the process end with `code` in a stated time, whatever threads still do; `code`.

    Libraries leave threads behind for which Python waits: after a checkpoint that could not be
    written, for minutes.
    """
    if code:
        wait = _GRACE if code == INTERRUPTED else _LAST
        timer = threading.Timer(wait, exit_now, (code,))
        timer.daemon = True
        timer.start()
        # What Python does meanwhile, no one needs to see interrupted.
        signal.signal(signal.SIGINT, lambda *_: exit_now(code))
    return code
