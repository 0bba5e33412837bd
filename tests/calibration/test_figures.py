"""Figures of a calibration: bins of a reliability diagram, and files."""

import numpy as np
import pytest
from scipy.special import expit

from siglip_jax.calibration import Identity, calibrate, measure
from siglip_jax.calibration.figures import _bins, draw, write_figures
from siglip_jax.scoring import Scores


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    logits = rng.normal(-4, 3, (400, 20)).astype(np.float32)
    targets = rng.random(logits.shape) < expit(logits)
    scores = Scores(logits, tuple(f"label {number}" for number in range(20)))
    made = calibrate(scores, targets, model=Identity("m", "sha256:1", {}), thresholds=["f1"])
    return made, measure(made, scores, targets)


def test_bins_hold_as_many_expected_labels_each(found):
    _, report = found
    said, right, count = _bins(report.probabilities[0], report.targets).T
    assert count.sum() == report.targets.size and (np.diff(said) > 0).all()
    np.testing.assert_allclose(said * count, report.probabilities[0].sum() / len(said), rtol=0.05)
    # These probabilities are true.
    spread = np.sqrt(said * (1 - said) / count)
    assert (np.abs(said - right) <= 4 * spread).all()


def test_both_halves_are_drawn(found):
    left, right = draw(*found).axes
    assert left.get_xlabel() == "probability, mean of a bin" and len(left.lines) >= 3
    assert [text.get_text() for text in right.get_legend().get_texts()][-1] == "f1"


def test_a_file_of_another_kind(found, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.png or \.html"):
        write_figures(*found, tmp_path / "x.pdf")
    write_figures(*found, tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
