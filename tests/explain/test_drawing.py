"""Files of explanations: what they show, and what is refused."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from siglip_jax.explain import Explanation

LABELS = ("a $5 bill & <b>", "a $ sign " + "x" * 60)


def explanation(labels=LABELS, heads=2, method="gradient"):
    rng = np.random.default_rng(0)
    return Explanation(
        labels=labels,
        logits=np.float32([1, -2])[: len(labels)],
        method=method,
        maps=rng.normal(size=(len(labels), 3, 5)).astype(np.float32),
        attention=rng.random((heads, 3, 5), np.float32) if heads else None,
        pixels=rng.integers(0, 256, (24, 40, 3), np.uint8),
    )


def test_panels():
    figure = explanation().figure()
    titles = [axes.get_title() for axes in figure.axes]
    # The image, two labels, the mean and two heads; dollar signs are no formula.
    assert titles[0] == "image" and titles[1] == "a $5 bill & <b>\n0.731" and len(titles) == 6
    assert titles[2] == "a $ sign xxxxxxxxxxxx...\n0.119" and titles[3] == "attention\nmean"
    heat = figure.axes[1].images[1]
    assert heat.get_array().shape == (3, 5) and heat.get_extent() == [-0.5, 39.5, 23.5, -0.5]
    assert heat.norm.vmin == -heat.norm.vmax  # no colour for what does nothing
    assert len(explanation(heads=0).figure().axes) == 3


def test_files(tmp_path):
    made = explanation()
    made.save(tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as image:
        assert image.format == "PNG" and image.width > 500
    made.save(tmp_path / "why.HTML")
    page = (tmp_path / "why.HTML").read_text("utf-8")
    assert "a $5 bill &amp; &lt;b&gt;" in page and "<b>" not in page
    assert "0.7311" in page and "method gradient" in page and "base64,iVBOR" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["why.HTML", "why.png"]


def test_letters_without_a_font_are_said(tmp_path):
    made = explanation(("猫", "a cat"))
    with pytest.warns(UserWarning, match=r"font has no 猫, and boxes are drawn; write an \.html"):
        made.save(tmp_path / "why.png")
    made.save(tmp_path / "why.html")
    assert "猫" in (tmp_path / "why.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("why.pgn", r"ends in \.png or \.html, got .*why\.pgn; did you mean \.png\?"),
        ("why", r"ends in \.png or \.html, got .*why$"),
        ("none/why.png", "the folder .*none does not exist"),
    ],
)
def test_names_that_are_refused(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        explanation().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("package", "name"), [("matplotlib", "w.png"), ("jinja2", "w.html")])
def test_a_missing_package(tmp_path, monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{package} is not installed, and it draws explanations"):
        explanation().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_explanation_says_the_best_patch():
    made = explanation()
    row, column = made.peak(1)
    assert made.maps[1, row, column] == made.maps[1].max()
    lines = repr(made).splitlines()
    assert lines[0] == "Explanation by gradient over 3 x 5 patches:"
    assert lines[2].endswith(f"logit -2.00, peak in row {row}, column {column}")
    assert made.scores.labels == LABELS
    file = io.BytesIO()
    made.figure().savefig(file, format="png")
    assert file.getvalue()
