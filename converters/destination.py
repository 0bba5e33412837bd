"""Where a conversion goes: nothing is there until everything is."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from siglip_jax.errors import ModelError
from siglip_jax.weights.staging import exchange, move_new, unfinished

from .certificate import certificate_beside


@contextlib.contextmanager
def replacing(destination: Path, *, source: Path, force: bool) -> Generator[Path, None, None]:
    """A path to write to in place of `destination`, moved there when the block succeeds.

    The block may write several entries whose names begin with that path's, as a
    tensorstore checkpoint has. If it fails, what it wrote is removed, and what was
    there before is untouched.

    Raises:
      ValueError: if `destination` exists and `force` is not given, is the source or
        lies in it, or its folder does not exist.
    """
    parent = destination.parent
    if not parent.is_dir():
        raise ValueError(f"cannot write {destination}: the folder {parent} does not exist")
    old = [destination, *parent.glob(f"{destination.name}-LAST")]
    old += [entry for entry in parent.glob(f"{destination.name}-*") if entry.name[-9:].isdigit()]
    old = [entry for entry in old if entry.exists()]
    if old and not force:
        raise ModelError(
            f"{old[0]} exists already",
            needs="force",
            advice="choose another name, or force to replace it",
        )
    inside = source.resolve()
    if any(entry.resolve() in (inside, *inside.parents) for entry in old):
        raise ValueError(f"{destination} is what is to be converted; choose another name")
    if inside.is_dir() and inside in destination.resolve().parents:
        raise ValueError(f"{destination} lies in {source}, which is to be converted")
    # A certificate beside nothing is no reason to refuse, but it goes back if this fails.
    old += [e for e in (certificate_beside(destination),) if e.exists()]
    _remove_stale(parent)
    with _workshop(destination) as work:
        new, aside = work / "new", work / "old"
        new.mkdir()
        aside.mkdir()
        # What was there before has not been touched yet: an end from outside may remove all.
        with unfinished(work):
            yield new / destination.name
        _install(sorted(new.iterdir()), parent, old, aside, force=force)


def _install(new: list[Path], parent: Path, old: list[Path], aside: Path, *, force: bool) -> None:
    """Gives the new entries their names, in order, and moves the old ones away; all or none."""
    done: list[tuple[Callable[[Path, Path], object], Path, Path]] = []
    try:
        for entry in new:
            there = parent / entry.name
            move = exchange if there.exists() and (force or there in old) else move_new
            move(entry, there)
            done.append((move, there, entry))
        for entry in old:
            if entry.name not in {each.name for each in new}:
                entry.rename(aside / entry.name)
                done.append((move_new, aside / entry.name, entry))
    except BaseException as error:
        for move, here, there in reversed(done):
            move(here, there)
        if isinstance(error, FileExistsError):
            raise ModelError(
                f"{error.filename2 or error.filename} has appeared meanwhile",
                needs="force",
                advice="choose another name, or force to replace it",
            ) from None
        raise


@contextlib.contextmanager
def _workshop(destination: Path) -> Generator[Path, None, None]:
    """A hidden folder beside `destination`, which is locked for as long as it is in use."""
    work = Path(
        tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=_ENDING)
    )
    try:
        with (work / _LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Removes what conversions left behind that were killed: nothing holds their lock.

    What they were to replace is never in there alone: it changes places with the new in one step.
    """
    for work in parent.glob(f".*{_ENDING}"):
        with contextlib.suppress(OSError), (work / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)


# Of the folder that a conversion works in, and of the file in it that says that it still does.
_ENDING, _LOCK = ".conversion", "lock"
