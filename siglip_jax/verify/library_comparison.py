"""What was written, run in the library it was written for, beside siglip_jax.

First both systems get the same arrays: the bundled images and texts, prepared once, so that
the weights and the arithmetic are compared and nothing else. Then the library prepares the
same images and texts by what lies in the folder, its own processor, and pixels, ids and
outputs are compared with what siglip_jax makes of them: only that shows that scores are the
same there.
"""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.converters import OpenCheckpoint, open_checkpoint
from siglip_jax.converters.tokenizer_json import PROBES
from siglip_jax.messages import reason
from siglip_jax.verify.inputs import TEXTS, pictures
from siglip_jax.verify.library_processing import Processed, processed
from siglip_jax.verify.library_processing import run as run_processed
from siglip_jax.verify.live_library import LIBRARIES, library_outputs, load, require_library
from siglip_jax.verify.own_outputs import Outputs, TowerInputs, bundled_inputs, own_outputs

if TYPE_CHECKING:
    from siglip_jax.preprocessing import Profile

# Of unit vectors, and of logits relative to the largest: what float32 rounding explains.
TOLERANCE = 1e-5
# Of pixels, in grey levels: resized in uint8 by other code, some round to the next one.
_LEVELS = 1.01


def compare(
    folder: Path,
    to: str,
    *,
    per_layer: bool = False,
    exact: tuple[str, ...] = (),
    profile: "Profile | None" = None,
) -> dict[str, Any]:
    """The largest differences between the library's outputs and ours, as plain JSON types.

    Args:
      folder: what `convert` wrote.
      to: its format.
      per_layer: also those of every block's output.
      exact: towers in which the library is known to compute the exact GELU: there ours does
        too, where arithmetic is compared.
      profile: the preprocessing that the folder should do; None leaves its processor alone.

    Raises:
      ValueError: if the library is not installed, or cannot load the folder.
    """
    require_library(to)
    try:
        with open_checkpoint(folder) as source:
            inputs = bundled_inputs(source, to)
            ours = own_outputs(source, inputs, per_layer=per_layer, exact=exact)
            made = _same_arrays(folder, to, source, inputs, ours, per_layer)
            if exact:
                made["exact_gelu"] = list(exact)
            if profile is not None:
                made["processor"] = _own_processing(folder, to, source, profile)
        return made
    finally:
        load.cache_clear()


def _same_arrays(
    folder: Path,
    to: str,
    source: OpenCheckpoint,
    inputs: TowerInputs,
    ours: Outputs,
    per_layer: bool,
) -> dict[str, Any]:
    theirs = library_outputs(folder, to, source.tower, inputs, per_layer=per_layer)
    largest = _differences(theirs, ours)
    made = {
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES[to].values()},
        "inputs": inputs.described,
        "largest_difference": largest,
        "largest_logit": _scale(ours.logits) if ours.logits is not None else None,
        "agrees": all(v <= TOLERANCE * _scale(getattr(ours, k)) for k, v in largest.items()),
    }
    if per_layer:
        made["layers"] = list(_layers(theirs, ours, inputs))
    return made


def _own_processing(
    folder: Path, to: str, source: OpenCheckpoint, profile: "Profile"
) -> dict[str, Any]:
    """What the folder's processor makes of the bundled images and texts, beside `profile`."""
    texts = (*TEXTS, *PROBES) if source.vocabulary is not None else None
    images = list(pictures().values())
    try:
        theirs = processed(folder, to, source.config, images, texts)
        outputs = run_processed(folder, to, source.tower, theirs)
    except Exception as error:  # theirs may be anything
        said = f"{type(error).__name__}: {reason(error)}"
        return {
            "class": None,
            "profile": profile.name,
            "inputs": "images and texts",
            "agrees": False,
            "error": f"{to} cannot prepare images and texts by {folder}: {said}",
        }
    inputs = bundled_inputs(source, to, profile, texts)
    pixels = _pixels(theirs, inputs, source, profile)
    other, altered = _other_ids(theirs, inputs, texts or ())
    parts = [f"{len(images)} images"] if source.config.vision else []
    parts += [f"{len(texts)} texts"] if texts and source.config.text else []
    same = pixels is None or pixels["largest_difference"] <= _LEVELS
    ours = own_outputs(source, inputs)
    if theirs.ids is None or inputs.texts is None:
        ours.text = ours.logits = None
    # Of the other texts no two systems are meant to say the same.
    kept = [i for i in range(len(texts or ())) if i not in (*other, *altered)]
    return {
        "class": theirs.name,
        "profile": profile.name,
        "inputs": " and ".join(parts),
        "pixels": pixels,
        "other_ids": [texts[i] for i in other] if texts else [],
        "altered": [texts[i] for i in altered] if texts else [],
        "largest_difference": _differences(outputs, ours, kept),
        "agrees": same and not other,
    }


def _pixels(
    theirs: Processed, inputs: TowerInputs, source: OpenCheckpoint, profile: "Profile"
) -> dict[str, float] | None:
    """How far pixels are apart, in grey levels, and how many of them are."""
    arrays = theirs.arrays(source.config)
    if arrays is None or inputs.images is None:
        return None
    ours = getattr(inputs.images, "patches", inputs.images)
    if arrays.shape != ours.shape:
        return {"largest_difference": 255.0, "share": 1.0}
    level = _grey_level(profile)
    if level.ndim:
        level = np.tile(level, arrays.shape[-1] // 3)
    apart = np.abs(arrays - ours) / level
    return {
        "largest_difference": float(apart.max()),
        "share": float((apart > 0.01).mean()),
    }


def _grey_level(profile: "Profile") -> np.ndarray:
    """What one grey level is after normalization, of each colour if they differ."""
    low, high = (np.asarray(end, np.float32) for end in profile.image.value_range)
    return (high - low) / 255


def _other_ids(
    theirs: Processed, inputs: TowerInputs, texts: tuple[str, ...]
) -> tuple[list[int], list[int]]:
    """Indices of texts with other ids: without a reason, and because the library alters them."""
    if theirs.ids is None or inputs.texts is None or not texts:
        return [], []
    ids = np.asarray(theirs.ids)
    if ids.shape != inputs.texts.shape:
        return list(range(len(texts))), []
    wrong = np.flatnonzero((ids != inputs.texts).any(1)).tolist()
    return [i for i in wrong if i not in theirs.altered], [i for i in wrong if i in theirs.altered]


def _differences(
    theirs: Outputs, ours: Outputs, texts: list[int] | None = None
) -> dict[str, float]:
    """The largest, by what it is of; of `texts` alone where they are given."""
    made: dict[str, float] = {}
    for name in ("image", "text", "logits"):
        a, b = getattr(theirs, name), getattr(ours, name)
        if a is None or b is None:
            continue
        if texts is not None and name != "image":
            a, b = (a[texts], b[texts]) if name == "text" else (a[:, texts], b[:, texts])
        if a.size:
            made[name] = _largest(a, b)
    return made


def _layers(theirs: Outputs, ours: Outputs, inputs: TowerInputs) -> Iterator[dict[str, Any]]:
    used = getattr(inputs.images, "type", None)
    for (tower, layer), block in sorted(ours.blocks.items()):
        other = theirs.blocks[tower, layer]
        if tower == "image" and used is not None:
            # Systems differ in what they compute at padding, which nothing reads.
            block, other = block[used == 1], other[used == 1]
        yield {
            "tower": tower,
            "layer": layer,
            "largest_difference": _largest(other, block),
            "largest_value": float(np.abs(block).max()),
        }


def _scale(values: np.ndarray) -> float:
    """What a difference is relative to: unit-norm rows to 1, logits and patches to the largest."""
    return max(1.0, float(np.abs(values).max()))


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def exact_gelu_effect(source: OpenCheckpoint, to: str, towers: tuple[str, ...]) -> dict[str, Any]:
    """How far the exact GELU in `towers` moves our own outputs for the bundled inputs."""
    inputs = bundled_inputs(source, to)
    right = own_outputs(source, inputs)
    wrong = own_outputs(source, inputs, exact=towers)
    return {
        name: _largest(getattr(wrong, name), getattr(right, name))
        for name in ("image", "text", "logits")
        if getattr(right, name) is not None
    }
