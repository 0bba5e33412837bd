"""`siglip-jax` in a process that gets stuck where a test wants it to.

STUCK=module:name.of.a.function, at whose call the file `stuck` is made, and then nothing comes
back for minutes. HOW=python: Python notices a signal at once. HOW=c: it does not, as in XLA.
"""

import hashlib
import importlib
import os
import sys
import threading
import time
from pathlib import Path

from siglip_jax.cli.ending import leave
from siglip_jax.cli.main import main

module, _, name = os.environ["STUCK"].partition(":")
*path, last = name.split(".")
home = importlib.import_module(module)
for part in path:
    home = getattr(home, part)


def stuck(*_, **__):
    if threading.current_thread() is not threading.main_thread():
        time.sleep(600)
    if os.environ["HOW"] == "python":
        Path("stuck").touch()
        time.sleep(600)
    # Not before: a signal between the two would be noticed at once.
    threading.Timer(0.5, Path("stuck").touch).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


setattr(home, last, stuck)
sys.exit(leave(main(sys.argv[1:])))
