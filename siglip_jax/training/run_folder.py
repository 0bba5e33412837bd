"""The folder of a run: which recipe it is of, and no other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siglip_jax.training.recipe import Recipe
from siglip_jax.weights.staging import staged

# A run may go on with these changed: they do not touch the weights.
_FREE = ("evaluate", "save", "data.workers")


def claim(folder: Path, recipe: Recipe) -> None:
    """Makes `folder` a run of `recipe`, or finds that it is one already.

    A run that ended before its first checkpoint has nothing to lose: another recipe may
    take its folder, such as the same with its mistake mended.

    Raises:
      ValueError: if it holds anything else: another recipe's run (what differs is named),
        a finished one, or other files.
    """
    path = folder / "recipe.json"
    ours = recipe.to_dict()
    if folder.is_file():
        raise ValueError(f"{folder} is a file; choose a folder")
    if not path.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no run; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, ours)
        return
    try:
        theirs = json.loads(path.read_text())
        changed = list(_differences(theirs, ours, ""))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not the recipe of a run: {error}") from error
    if (folder / "model").exists():
        raise ValueError(f"{folder} holds a finished run; choose another folder")
    if changed and any(entry.name.isdigit() for entry in (folder / "checkpoints").glob("*")):
        raise ValueError(
            f"{folder} holds a run of another recipe: {'; '.join(changed[:5])}; "
            "choose another folder, or the recipe that it began with"
        )
    if changed:
        _write(path, ours)


def _write(path: Path, recipe: dict[str, Any]) -> None:
    with staged(path) as temporary:
        temporary.write_text(json.dumps(recipe, indent=1) + "\n")


def _differences(there: Any, here: Any, where: str) -> Iterator[str]:
    for key in dict.fromkeys([*there, *here]):
        name = f"{where}{key}"
        if name in _FREE or there.get(key) == here.get(key):
            continue
        if isinstance(there.get(key), dict) and isinstance(here.get(key), dict):
            yield from _differences(there[key], here[key], f"{name}.")
        else:
            yield f"{name} is {there.get(key)!r} there and {here.get(key)!r} here"
