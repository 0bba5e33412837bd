"""An explanation as a picture: the image, a map for each label, and every head; .png or .html."""

import base64
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.explain.explanation import SIGNED, Explanation
from siglip_jax.messages import did_you_mean, optional_package
from siglip_jax.weights.staging import staged

_WHY = "it draws explanations"
ENDINGS = (".png", ".html")
_COLUMNS, _INCHES = 5, 2.3
_SAID = {
    "gradient": "Red patches raise the score where the pooling head looks at them, blue ones lower "
    "it: attention times the gradient of the score by it, summed over heads.",
    "integrated_gradients": "Red patches raise the score, blue ones lower it: together they make "
    "the difference between the image and one of its mean colour.",
    "similarity": "The score of each patch alone, as if the pooling head looked at nothing else.",
    "attention": "Where the pooling head looks, the mean over its heads; it is the same for every "
    "label.",
}

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Why these scores</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: right; }
td:nth-child(2), th:nth-child(2) { text-align: left; } img { max-width: 100%; }
</style></head><body>
<h1>Why these scores</h1>
<p>{{ said }} {{ rows }} x {{ columns }} patches; method {{ method }}.</p>
<table><tr><th></th><th>label</th><th>probability</th><th>logit</th><th>peak</th></tr>
{% for number, label, probability, logit, peak in labels %}
<tr><td>{{ number }}</td><td>{{ label }}</td><td>{{ probability }}</td><td>{{ logit }}</td>
<td>{{ peak }}</td></tr>
{% endfor %}</table>
<p><img alt="maps over the image" src="data:image/png;base64,{{ figure }}"></p>
</body></html>
"""


def check_file(path: Path) -> None:
    """Refuses what cannot be written: an ending, a folder, or a package that is missing.

    Raises:
      ValueError: one line.

    >>> check_file(Path("why.htm"))
    Traceback (most recent call last):
    ValueError: expected a name that ends in .png or .html, got why.htm; did you mean .html?
    """
    suffix = path.suffix.lower()
    if suffix not in ENDINGS:
        hint = did_you_mean(suffix, ENDINGS)
        raise ValueError(f"expected a name that ends in .png or .html, got {path}{hint}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: the folder {path.parent} does not exist")
    optional_package("matplotlib", why=_WHY)
    if suffix == ".html":
        optional_package("jinja2", why=_WHY)


def draw(explanation: Explanation, *, numbered: bool = False) -> Any:
    """A `matplotlib.figure.Figure` of panels, five in a row.

    Args:
      explanation: what to draw.
      numbered: titles have the number of a label in place of its words.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    figure_module: Any = optional_package("matplotlib.figure", why=_WHY)
    made = explanation
    panels: list[tuple[str, np.ndarray | None, bool]] = [("image", None, False)]
    probabilities = made.scores.probabilities[0]
    for index, (label, heat) in enumerate(zip(made.labels, made.maps, strict=True)):
        name = f"label {index + 1}" if numbered else _short(label)
        panels.append((f"{name}\n{probabilities[index]:.3g}", heat, made.method in SIGNED))
    if made.attention is not None:
        panels.append(("attention\nmean", made.attention.mean(axis=0), False))
        for number, head in enumerate(made.attention):
            panels.append((f"attention\nhead {number}", head, False))
    height, width = made.pixels.shape[:2]
    rows = -(-len(panels) // _COLUMNS)
    tall = _INCHES * min(max(height / width, 0.3), 3) + 0.55
    columns = min(_COLUMNS, len(panels))
    figure = figure_module.Figure(figsize=(columns * _INCHES, rows * tall), layout="constrained")
    for number, (title, heat, signed) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        # A label may hold a dollar sign, which is no formula.
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_axis_off()
        if heat is None:
            axes.imshow(made.pixels)
        else:
            show_map(axes, made.pixels, heat, signed=signed)
    return figure


def show_map(axes: Any, pixels: np.ndarray, heat: np.ndarray, *, signed: bool) -> None:
    """Draws a map (rows, columns) over an image in grey.

    Args:
      axes: of matplotlib.
      pixels: (h, w, 3) uint8.
      heat: (rows, columns).
      signed: whether numbers have a sign: red above 0, blue below it.
    """
    grey = pixels.mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    height, width = grey.shape
    most = float(np.abs(heat).max()) or 1.0
    low, high = (-most, most) if signed else (float(heat.min()), float(heat.max()))
    axes.imshow(
        heat,
        cmap="RdBu_r" if signed else "viridis",
        vmin=low,
        vmax=high,
        alpha=0.65,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


def _short(label: str, most: int = 24) -> str:
    words = " ".join(label.split())
    return words if len(words) <= most else f"{words[: most - 3]}..."


def write(explanation: Explanation, path: Path) -> None:
    """Writes an explanation as .png, or as a .html page of its own.

    Raises:
      ValueError: as `check_file`.
    """
    check_file(path)
    page = path.suffix.lower() == ".html"
    content = _png(draw(explanation, numbered=page), path)
    if page:
        content = _page(explanation, content).encode("utf-8")
    with staged(path) as temporary:
        temporary.write_bytes(content)


def _png(figure: Any, path: Path) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(file, format="png", dpi=110)
    letters: dict[str, None] = {}
    for warning in caught:
        found = re.match(r"Glyph (\d+)", str(warning.message))
        if found:
            letters[chr(int(found[1]))] = None
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if letters:
        warnings.warn(
            f"{path}: matplotlib's font has no {' '.join(letters)}, and boxes are drawn; write an "
            ".html page",
            stacklevel=4,
        )
    return file.getvalue()


def _page(explanation: Explanation, image: bytes) -> str:
    jinja2: Any = optional_package("jinja2", why=_WHY)
    # Labels are anything that a user wrote.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    probabilities = explanation.scores.probabilities[0]
    labels = [
        (
            index + 1,
            label,
            f"{probabilities[index]:.4g}",
            f"{explanation.logits[index]:.3f}",
            "row {}, column {}".format(*explanation.peak(index)),
        )
        for index, label in enumerate(explanation.labels)
    ]
    rows, columns = explanation.grid
    return environment.from_string(_PAGE).render(
        said=_SAID[explanation.method],
        method=explanation.method,
        rows=rows,
        columns=columns,
        labels=labels,
        figure=base64.b64encode(image).decode(),
    )
