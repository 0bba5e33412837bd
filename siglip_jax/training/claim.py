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
def held_folder(folder: Path, recipe: Recipe) -> Iterator[int | None]:
    """`claim_folder`, held until the block ends: two processes would wreck each other's run.

    Yields:
      How many steps a run that becomes longer had; else None.

    Raises:
      ValueError: as `claim_folder`; if another process trains in the folder.
    """
    make_run_folder(folder, _RECORD, "run")
    with locked(folder, what="run"):
        yield claim_folder(folder, recipe)


def claim_folder(folder: Path, recipe: Recipe) -> int | None:
    """Makes `folder` a run of `recipe`, or finds that it is one already.

    A run that ended before its first checkpoint has nothing to lose: another recipe may
    take its folder, such as the same with its mistake mended. Of a run, finished or not, the
    steps may become more: what it was finished with is kept as `model_STEPS`.

    Returns:
      How many steps a run that becomes longer had; else None.

    Raises:
      ValueError: if it holds anything else: another recipe's run (what differs is named),
        a finished one, or other files.
    """
    path, ours = folder / _RECORD, recipe.to_dict()
    make_run_folder(folder, _RECORD, "run")
    if not claim_record(path, lambda: _write(path, ours)):
        return None
    try:
        there = json.loads(path.read_text("utf-8"))
        changed = differences(there, ours, _FREE)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not the recipe of a run: {error}") from error
    begun = any(entry.name.isdigit() for entry in (folder / "checkpoints").glob("*"))
    finished = (folder / "model").exists()
    longer = [each.name for each in changed] == ["steps"] and ours["steps"] > there["steps"]
    if finished and not changed:
        raise ValueError(
            f"{folder} holds a finished run; choose another folder, or lengthen it with "
            f"steps above {there['steps']}"
        )
    if changed and (begun or finished) and not longer:
        raise ValueError(
            f"{folder} holds a run of another recipe: {'; '.join(map(str, changed[:5]))}; of a run "
            f"only {', '.join(_FREE)} may change, and steps become more; choose another folder, or "
            "the recipe that it began with"
        )
    if not changed:
        return None
    for name in ("model", "adapter"):
        if (result := folder / name).exists():
            result.rename(folder / f"{name}_{there['steps']}")
    _write(path, ours)
    return there["steps"] if begun and longer else None


def _write(path: Path, recipe: dict[str, Any]) -> None:
    with staged(path, durable=True) as temporary:
        temporary.write_text(json.dumps(recipe, indent=1) + "\n", "utf-8")
