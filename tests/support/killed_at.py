"""A process that kills itself, as kill -9 does, before the n-th time that it does something.

What counts is that a thing is renamed or is to be on the disk, and what else is `counted`.
"""

import os
import signal
import threading
from pathlib import Path

_lock = threading.Lock()
_left = 0


def arm(n):
    """It dies before the n-th from now on; never, if that is 0."""
    global _left
    _left = n


def used():
    """How many there were since it was armed with 0."""
    return -_left


def counted(function):
    """`function`, each call of which counts."""

    def call(*arguments, **options):
        global _left
        with _lock:
            _left -= 1
            if _left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call


os.fsync, Path.replace, Path.rename = map(counted, (os.fsync, Path.replace, Path.rename))
