"""Figures of an evaluation: counts, titles, and the worst errors in their order."""

import numpy as np
import pytest
from PIL import Image

from siglip_jax.evaluation.figures import (
    confusion_figure,
    confusion_matrix,
    errors_sheet,
    similarity_figure,
    worst_errors,
)


def test_confusions_are_counted():
    rng = np.random.default_rng(0)
    right, predicted = rng.integers(0, 4, (2, 200))
    counts = confusion_matrix(right, predicted, 4)
    for row, column in np.ndindex(4, 4):
        assert counts[row, column] == sum((right == row) & (predicted == column))
    axes = confusion_figure(right, predicted, ["a", "b", "$c$", "d"]).axes[0]
    wrong = sum(right != predicted)
    assert axes.get_title() == f"{wrong} errors of 200 images"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "$c$", "d"]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert axes.texts[0].get_text() == str(counts[0, 0])


def test_of_many_classes_those_that_are_confused():
    right = np.arange(100)
    predicted = right.copy()
    predicted[[70, 71, 72]] = [3, 3, 3]
    axes = confusion_figure(right, predicted, [f"n{i}" for i in range(100)], most=4).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["n3", "n70", "n71", "n72"]
    assert axes.get_title() == "3 errors of 100 images; the 4 of 100 classes that are confused most"


@pytest.mark.parametrize(
    ("right", "predicted", "message"),
    [
        ([0, 2], [0, 1], r"right: expected indices in 0\.\.1, got 0\.\.2"),
        ([0, 1], [0, -1], r"predicted: expected indices in 0\.\.1, got -1\.\.0"),
        ([0, 1], [0.5, 1], "predicted: expected indices of classes of shape"),
        ([0, 1], [0], "2 right classes for 1 predicted ones"),
    ],
)
def test_classes_that_are_none(right, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_figure(right, predicted, ["a", "b"])


def test_similarities():
    scores = np.float32([[1, 2, 3], [4, 5, 6]])
    axes = similarity_figure(scores, ["x", "y"], ["a", "b", "c"]).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), scores)
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3", "4", "5", "6"]
    with pytest.raises(ValueError, match=r"expected scores of shape \(1, 3\), for 1 row and 3"):
        similarity_figure(scores, ["x"], ["a", "b", "c"])
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="the score of 'y' and 'c' is NaN or infinite"):
        similarity_figure(scores, ["x", "y"], ["a", "b", "c"])


def test_a_sheet_of_the_worst_errors(tmp_path):
    images = []
    for number in range(4):
        images.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (20, 20), (60 * number, 0, 0)).save(images[-1])
    scores = np.float32([[9, 0], [1, 2], [0, 9], [3, 9]])
    right = [0, 0, 0, 0]
    assert worst_errors(scores, right).tolist() == [2, 3, 1]
    page = tmp_path / "errors.html"
    assert errors_sheet(page, images, scores, right, ["cat", "<dog>"], count=2) == 2
    text = page.read_text("utf-8")
    assert text.index("2.png") < text.index("3.png") and "1.png" not in text
    assert "is cat" in text and "<dog>" not in text.replace("&lt;dog&gt;", "")
    assert errors_sheet(tmp_path / "e.png", images, scores, right, ["cat", "<dog>"]) == 3
    with pytest.raises(ValueError, match="every image is right"):
        errors_sheet(tmp_path / "none.png", images, np.eye(2)[[0] * 4], right, ["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(4, 3\), for 4 images and 3 classes, got"):
        errors_sheet(tmp_path / "none.png", images, scores, right, ["a", "b", "c"])
    assert not (tmp_path / "none.png").exists()
