"""Which recipe the folder of a run is of, and no other."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siglip_jax.run_folder import claim_record, differences, locked, make_run_folder
from siglip_jax.training.recipe import Recipe
from siglip_jax.weights.staging import staged

# A run may go on with these changed: they do not touch the weights.
_FREE = ("evaluate", "save", "data.workers", "data.max_error_share")
_RECORD = "recipe.json"


@contextlib.contextmanager
def held_folder(folder: Path, recipe: Recipe) -> Iterator[None]:
    """`claim_folder`, held until the block ends: two processes would wreck each other's run.

    Raises:
      ValueError: as `claim_folder`; if another process trains in the folder.
    """
    make_run_folder(folder, _RECORD, "run")
    with locked(folder, what="run"):
        claim_folder(folder, recipe)
        yield


def claim_folder(folder: Path, recipe: Recipe) -> None:
    """Makes `folder` a run of `recipe`, or finds that it is one already.

    A run that ended before its first checkpoint has nothing to lose: another recipe may
    take its folder, such as the same with its mistake mended.

    Raises:
      ValueError: if it holds anything else: another recipe's run (what differs is named),
        a finished one, or other files.
    """
    path, ours = folder / _RECORD, recipe.to_dict()
    make_run_folder(folder, _RECORD, "run")
    if not claim_record(path, lambda: _write(path, ours)):
        return
    try:
        changed = differences(json.loads(path.read_text("utf-8")), ours, _FREE)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not the recipe of a run: {error}") from error
    if (folder / "model").exists():
        raise ValueError(f"{folder} holds a finished run; choose another folder")
    if changed and any(entry.name.isdigit() for entry in (folder / "checkpoints").glob("*")):
        raise ValueError(
            f"{folder} holds a run of another recipe: {'; '.join(map(str, changed[:5]))}; "
            "choose another folder, or the recipe that it began with"
        )
    if changed:
        _write(path, ours)


def _write(path: Path, recipe: dict[str, Any]) -> None:
    with staged(path, durable=True) as temporary:
        temporary.write_text(json.dumps(recipe, indent=1) + "\n", "utf-8")
