"""What `siglip-jax calibrate` prints: how good probabilities are, before and after."""

from typing import TYPE_CHECKING

from siglip_jax.cli.output import aligned

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration, Report


def print_report(calibration: "Calibration", report: "Report") -> None:
    """The numbers of a report, and what to know of them."""
    print(f"{report.images:,} images, {report.labels:,} labels{_positives(report)}")
    print(fitted(calibration))
    rows: list[tuple[str, ...]] = [("", "before", "after")]
    sums = [f"{value:.3f}" for value in report.row_sums]
    if report.before and report.after:
        both = report.before, report.after
        rows += [
            ("log-loss an image (NLL)", *(f"{one.nll:.3f}" for one in both)),
            ("calibration error (ECE)", *(f"{one.ece:.5f}" for one in both)),
            ("right above wrong (AUC)", *(f"{one.auc:.3f}" for one in both)),
        ]
    rows.append(("probabilities of an image sum to", *sums))
    print(aligned(rows, "lrr"))
    if report.before and calibration.method not in ("none", "expect"):
        print("NLL, ECE and AUC after: by cross-validation, on images that the fit has not seen")
    for rule, values in calibration.rules.items():
        reached = [value for value in values if value <= 1]
        low, high = f"{min(reached):.3g}", f"{max(reached):.3g}"
        share = f", of {len(reached):,} of {len(values):,} labels" * (len(reached) < len(values))
        print(f"threshold {rule}: {low if low == high else f'{low} to {high}'}{share}")
    for sentence in report.words:
        print(sentence)


def fitted(calibration: "Calibration") -> str:
    """What was fitted, in a line.

    >>> from siglip_jax.calibration import Calibration, Identity
    >>> fitted(Calibration(identity=Identity("m", "", {}), labels=("a",), method="platt", n=9,
    ...                    scale=0.5))
    'platt: sigmoid(0.5 * logit + 0)'
    """
    if calibration.curve is not None:
        return f"isotonic: a curve of {len(calibration.curve[0]):,} points"
    if calibration.method == "softmax":
        return f"softmax({calibration.scale:.4g} * logits): of exactly one right label"
    low, high = float(calibration.bias.min()), float(calibration.bias.max())
    bias = f"{low:+.4g}" if low == high else f"a bias of {low:+.4g} to {high:+.4g}"
    bias = f"{bias[0]} {bias[1:]}" if low == high else f"+ {bias}"
    return f"{calibration.method}: sigmoid({calibration.scale:.4g} * logit {bias})"


def _positives(report: "Report") -> str:
    if report.positives is None:
        return ", not labelled"
    return f", {report.positives:,} right" if report.positives else ", none of which fits"
