"""Ours against what is published, as a figure."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siglip_jax.messages import optional_package
from siglip_jax.suites.comparison import Row, spoken
from siglip_jax.weights.staging import staged

_WHY = "it draws figures"
_OURS, _THEIRS = "#2a6f97", "#c44e52"


def check_figure(path: Path) -> None:
    """Refuses what cannot be drawn: an ending, a folder or a package that is missing.

    Raises:
      ValueError: one line.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"expected a name that ends in .png or .svg, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist")
    optional_package("matplotlib", why=_WHY)


def draw(rows: Sequence[Row], title: str) -> Any:
    """A `matplotlib.figure.Figure`: a line for each metric of a task that is measured.

    A published value that was measured in the same way is a filled circle, else a hollow one.
    """
    figure_module: Any = optional_package("matplotlib.figure", why=_WHY)
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.ours is not None:
            lines.setdefault((row.title, row.metric), []).append(row)
    figure = figure_module.Figure(figsize=(8, 1.6 + 0.3 * len(lines)), layout="constrained")
    axes = figure.subplots()
    said: set[str] = set()

    def once(label: str) -> str | None:
        new = label not in said
        said.add(label)
        return label if new else None

    for number, own in enumerate(lines.values()):
        for row in own:
            if row.published is None:
                continue
            same = row.same == "yes"
            label = f"{row.source}{'' if same else ', measured otherwise'}"
            axes.plot([row.ours, row.published], [number] * 2, color="0.75", zorder=1)
            axes.scatter(
                row.published,
                number,
                s=42,
                facecolor=_THEIRS if same else "white",
                edgecolor=_THEIRS,
                marker="s" if row.source == "open_clip" else "o",
                label=once(label),
                zorder=2,
            )
        axes.scatter(own[0].ours, number, s=42, color=_OURS, label=once("ours"), zorder=3)
    names = [f"{name}, {spoken(metric)}" if metric else name for name, metric in lines]
    axes.set_yticks(range(len(lines)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="percent", title=title)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if said:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def write_figure(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes the figure, whole or not at all.

    Raises:
      ValueError: as `check_figure`.
    """
    check_figure(path)
    content = io.BytesIO()
    form = path.suffix.lower().removeprefix(".")
    draw(rows, title).savefig(content, format=form, dpi=130)
    with staged(path) as temporary:
        temporary.write_bytes(content.getvalue())
