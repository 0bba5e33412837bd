"""Where a conversion goes: nothing is there until everything is."""

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from siglip_jax.errors import ModelError
from siglip_jax.weights.staging import move_all, unfinished

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
    work = Path(tempfile.mkdtemp(dir=parent, prefix=f".{destination.name}."))
    try:
        new, aside = work / "new", work / "old"
        new.mkdir()
        aside.mkdir()
        # `work` also holds what was there before while the two change places.
        with unfinished(new if old else work):
            yield new / destination.name
        pairs = [(entry, aside / entry.name) for entry in old]
        move_all(pairs + [(entry, parent / entry.name) for entry in sorted(new.iterdir())])
    finally:
        shutil.rmtree(work, ignore_errors=True)
