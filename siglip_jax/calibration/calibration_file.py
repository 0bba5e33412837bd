"""A calibration as a small JSON file."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.calibration.identity import Identity
from siglip_jax.json_text import parsed
from siglip_jax.messages import near_file, reason
from siglip_jax.regular_file import read_regular
from siglip_jax.weights.staging import staged

if TYPE_CHECKING:
    from siglip_jax.calibration.calibration import Calibration

FORMAT = "siglip_jax calibration 1"
_MOST = 64 << 20  # bytes: a million labels are about 40 MB


def plain(calibration: "Calibration") -> dict[str, Any]:
    """A calibration as plain JSON types; a threshold that nothing reaches is null."""
    c = calibration
    return {
        "format": FORMAT,
        "model": c.identity.name,
        "weights": c.identity.weights,
        "profile": c.identity.profile,
        "labels": list(c.labels),
        "templates": list(c.templates),
        "method": c.method,
        "n": c.n,
        "scale": c.scale,
        "bias": c.bias.tolist(),
        "curve": None if c.curve is None else [part.tolist() for part in c.curve],
        "thresholds": {
            rule: [None if math.isinf(value) else float(value) for value in values]
            for rule, values in c.rules.items()
        },
        "threshold": c.rule,
    }


def write(calibration: "Calibration", path: Path) -> None:
    with staged(path) as temporary:
        # As strict JSON: no NaN, no infinity.
        text = json.dumps(plain(calibration), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", "utf-8")


def read(path: Path) -> "Calibration":
    from siglip_jax.calibration.calibration import Calibration

    try:
        text = read_regular(path, _MOST).decode("utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file{near_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a calibration: {reason(error)}") from error
    try:
        found = _fields(parsed(text))
        return Calibration(**found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a calibration, as siglip-jax calibrate writes it: {_said(error)}"
        ) from error


def _fields(text: Any) -> dict[str, Any]:
    if not isinstance(text, dict):
        raise ValueError(f"expected an object, got {type(text).__name__}")
    if text.get("format") != FORMAT:
        raise ValueError(f"its format is {text.get('format')!r:.60}, expected {FORMAT!r}")
    identity = Identity(*(text[name] for name in ("model", "weights", "profile")))
    for name, kind in (("name", str), ("weights", str), ("profile", dict)):
        if not isinstance(getattr(identity, name), kind):
            raise ValueError(f"its {name} is no {kind.__name__}")
    for name in ("labels", "templates"):
        if not isinstance(text[name], list) or not all(isinstance(t, str) for t in text[name]):
            raise ValueError(f"its {name} are not strings")
    curve = text["curve"]
    return {
        "identity": identity,
        "labels": tuple(text["labels"]),
        "templates": tuple(text["templates"]),
        "method": text["method"],
        "n": int(text["n"]),
        "scale": float(text["scale"]),
        "bias": np.array(text["bias"], np.float64),
        "curve": None if curve is None else tuple(np.array(c, np.float64) for c in curve),
        "rules": {
            rule: np.array([math.inf if v is None else v for v in values], np.float64)
            for rule, values in text["thresholds"].items()
        },
        "rule": text["threshold"],
    }


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return reason(error)
