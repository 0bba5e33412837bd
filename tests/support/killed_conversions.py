"""Conversions that are killed: python killed_conversions.py SOURCE FOLDER TO KILLS

Converts SOURCE once, then kills that many others before ever later steps, and lets each be
followed by one that is not: prints a line of JSON of what each left and what came of it. All
are forks of this process, which has imported what they need and done nothing.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import killed_at

from siglip_jax.converters import convert
from siglip_jax.weights import staging

# What is done to files and folders, and each part that is written.
_EVENTS = ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "shutil.rmtree")
staging._renamed = killed_at.counted(staging._renamed)
step = killed_at.counted(lambda *_: None)


def forked(action):
    """The status with which a fork that does it ends."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def converted(source, target, to, kill_at=0, count=None):
    """In a fork: dies before step `kill_at`, or writes how many there were to `count`."""

    def action():
        folder = str(target.parent)

        def hook(event, arguments):
            if event in _EVENTS and folder in str(arguments[0]):
                step()

        sys.addaudithook(hook)
        killed_at.arm(kill_at)
        convert(source, target, to=to, force=True, progress=lambda done, total: step())
        if count:
            steps = killed_at.used()
            count.write_text(str(steps))

    return forked(action)


def contents(folder):
    """Digest of every file, but for the date in the record of a conversion."""
    found = {}
    for entry in sorted(folder.rglob("*")):
        if entry.is_file():
            data = re.sub(rb'"date": "[^"]*"', b"", entry.read_bytes())
            found[str(entry.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def main(source, folder, to, kills):
    folder = Path(folder)
    name = "x.npz" if to == "npz" else "x"
    whole, cut, count = folder / "whole", folder / "cut", folder / "count"
    for each in (whole, cut):
        each.mkdir()
    assert converted(source, whole / name, to, count=count) == 0
    steps, expected = int(count.read_text()), contents(whole)
    # What lies there already does as much, and is exchanged.
    for kill in range(kills):
        if kill % 2 == 0:
            shutil.rmtree(cut)
            cut.mkdir()
        died = converted(source, cut / name, to, 1 + kill * steps // kills)
        left = sorted(entry.name for entry in cut.iterdir())
        ended = converted(source, cut / name, to)
        same = contents(cut) == expected
        hidden = [n for n in sorted(entry.name for entry in cut.iterdir()) if n.startswith(".")]
        line = {"died": died, "left": left, "ended": ended, "same": same, "hidden": hidden}
        print(json.dumps(line | {"steps": steps}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
