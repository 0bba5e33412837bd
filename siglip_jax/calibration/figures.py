"""Pictures of a calibration: reliability, precision and recall; as .png or .html."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.calibration.calibration import Calibration
from siglip_jax.calibration.report import Report
from siglip_jax.messages import optional_package
from siglip_jax.weights.staging import staged

_COLORS = {"before": "#c44e52", "after": "#2a6f97"}
_WHY = "it draws reports"

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Calibration of {{ model }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }
.word { border-left: .3rem solid #c44e52; padding-left: .8rem; }
.labels { columns: 3; font-size: .9rem; }
</style></head><body>
<h1>Calibration of {{ model }}</h1>
<p>{{ images }} images, {{ labels|length }} labels, method {{ method }},
templates {{ templates|join(", ") }}.</p>
{% for sentence in words %}<p class="word">{{ sentence }}</p>{% endfor %}
<table><tr><th></th><th>before</th><th>after</th></tr>
{% for name, before, after in rows %}
<tr><td>{{ name }}</td><td>{{ before }}</td><td>{{ after }}</td></tr>
{% endfor %}</table>
<p><img alt="reliability, precision and recall" src="data:image/png;base64,{{ figure }}"></p>
<h2>Labels</h2>
<table><tr><th>label</th><th>bias</th>{% for rule in rules %}<th>{{ rule }}</th>{% endfor %}</tr>
{% for label, bias, limits in labels %}
<tr><td>{{ label }}</td><td>{{ bias }}</td>
{% for limit in limits %}<td>{{ limit }}</td>{% endfor %}</tr>
{% endfor %}</table>
</body></html>
"""


def check_figures(path: Path) -> None:
    """Refuses what cannot be drawn: an ending, or a package that is missing.

    Raises:
      ValueError: one line.
    """
    if path.suffix.lower() not in (".png", ".html"):
        raise ValueError(f"expected a name that ends in .png or .html, got {path}")
    optional_package("matplotlib", why=_WHY)
    if path.suffix.lower() == ".html":
        optional_package("jinja2", why=_WHY)


def draw(calibration: Calibration, report: Report) -> Any:
    """A `matplotlib.figure.Figure` of a report.

    Of labelled images: how often labels are right beside how probable they were said to be,
    with bars of 95 % confidence, and precision and recall with the thresholds. Of others, what
    the probabilities of an image sum to.
    """
    figure_module: Any = optional_package("matplotlib.figure", why=_WHY)
    figure = figure_module.Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    if report.targets is None or not report.targets.any():
        _row_sums(left, report)
        _best(right, report)
    else:
        _reliability(left, report)
        _precision_recall(right, calibration, report)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    return figure


def write_figures(calibration: Calibration, report: Report, path: Path) -> None:
    """Writes a report as .png, or as a .html page of its own.

    Raises:
      ValueError: as `check_figures`, or if the folder does not exist.
    """
    check_figures(path)
    image = io.BytesIO()
    draw(calibration, report).savefig(image, format="png", dpi=130)
    content = image.getvalue()
    if path.suffix.lower() == ".html":
        content = _page(calibration, report, content).encode("utf-8")
    with staged(path) as temporary:
        temporary.write_bytes(content)


def _reliability(axes: Any, report: Report) -> None:
    """On logarithmic axes where most expected labels have small probabilities."""
    least, targets = 1.0, np.asarray(report.targets)
    for (name, color), p in zip(_COLORS.items(), report.probabilities, strict=True):
        said, right, count = _bins(p, targets).T
        reach = 1.96 * np.sqrt(right * (1 - right) / count) + 1.92 / count
        seen = right > 0
        shown = np.clip(said[seen], 1e-6, 1)
        low = np.minimum(reach[seen], right[seen] * 0.9)
        axes.errorbar(
            *(shown, right[seen]), yerr=[low, reach[seen]], color=color, marker="o", label=name
        )
        least = min([least, *shown.tolist(), *right[seen].tolist()])
    axes.plot([least / 2, 1], [least / 2, 1], color="0.6", linestyle="--", label="calibrated")
    if np.median(_bins(report.probabilities[1], targets)[:, 0]) < 0.1:
        axes.set(xscale="log", yscale="log", xlim=(least / 2, 1.5), ylim=(least / 2, 1.5))
    else:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel="probability, mean of a bin", ylabel="share that is right")
    axes.set_title("Reliability, bins of as many expected labels")


def _bins(probabilities: np.ndarray, targets: np.ndarray, count: int = 10) -> np.ndarray:
    """(bins, 3): mean probability, share that is right, number; each of the same sum.

    Nearly all probabilities are small: of as many each, one bin would have all that matter.
    """
    order = np.argsort(probabilities.ravel(), kind="stable")
    p, right = probabilities.ravel()[order], targets.ravel()[order]
    sums = np.cumsum(p)
    number = np.minimum((count * (sums - p / 2) / sums[-1]).astype(int), count - 1)
    parts = [number == place for place in np.unique(number)]
    return np.array([(p[part].mean(), right[part].mean(), part.sum()) for part in parts])


def _precision_recall(axes: Any, calibration: Calibration, report: Report) -> None:
    from sklearn.metrics import precision_recall_curve

    targets: Any = report.targets
    precision, recall, _ = precision_recall_curve(targets.ravel(), report.probabilities[1].ravel())
    axes.plot(recall, precision, color=_COLORS["after"], label="all labels together")
    for (rule, limit), marker in zip(calibration.rules.items(), "osD^v<>", strict=False):
        hits = report.probabilities[1] >= limit
        if hits.any():
            where = (targets & hits).sum() / targets.sum(), (targets & hits).sum() / hits.sum()
            axes.plot(*where, marker, color="black", label=rule)
    axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    axes.set_title("Precision and recall")


def _row_sums(axes: Any, report: Report) -> None:
    for (name, color), p in zip(_COLORS.items(), report.probabilities, strict=True):
        sums = np.maximum(p.sum(axis=1), 1e-6)
        label = f"{name}, mean {sums.mean():.3g}"
        axes.hist(sums, 40, histtype="step", linewidth=2, color=color, label=label)
    axes.set(xlabel="sum of the probabilities of an image", ylabel="images")
    axes.set_title("How many labels are said to fit")


def _best(axes: Any, report: Report) -> None:
    for (name, color), p in zip(_COLORS.items(), report.probabilities, strict=True):
        axes.hist(
            *(p.max(axis=1), np.linspace(0, 1, 41)),
            histtype="step",
            linewidth=2,
            color=color,
            label=name,
        )
    axes.set(xlabel="probability of the best label of an image", ylabel="images")
    axes.set_title("How sure it is of the best")


def _page(calibration: Calibration, report: Report, image: bytes) -> str:
    jinja2: Any = optional_package("jinja2", why=_WHY)
    # Labels are anything that a user wrote.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    rows = []
    if report.before and report.after:
        for name in ("nll", "ece", "auc"):
            values = getattr(report.before, name), getattr(report.after, name)
            rows.append((name.upper(), *(f"{value:.4g}" for value in values)))
    rows.append(("sum of a row", *(f"{value:.4g}" for value in report.row_sums)))
    labels = [
        (
            label,
            f"{calibration.bias[column]:.3g}",
            [
                "never" if np.isinf(limit[column]) else f"{limit[column]:.3g}"
                for limit in calibration.rules.values()
            ],
        )
        for column, label in enumerate(calibration.labels)
    ]
    return environment.from_string(_PAGE).render(
        model=calibration.identity.name,
        method=calibration.method,
        templates=calibration.templates,
        images=report.images,
        words=report.words,
        rows=rows,
        figure=base64.b64encode(image).decode(),
        labels=labels,
        rules=list(calibration.rules),
    )
