"""Bundled pictures and texts, drawn circles, published numbers."""

import hashlib
import json

import numpy as np
import pytest
from paths import SHARED
from PIL import Image

from siglip_jax.checkpoints import CHECKPOINTS, find
from siglip_jax.verify import circles, inputs, notebooks, published_logits
from siglip_jax.verify.published_logits import SCALES, Published, published_for

# Embeddings that people kept are compared by these inputs: they may never change.
DIGEST = "552a1efe1e968b8f9f977c66c09e080568177c126fda3d88edf411dbe64e77db"


def test_inputs_are_the_same_everywhere():
    assert inputs.inputs_digest() == DIGEST


def test_pictures_differ_in_what_resizes_and_crops_treat_differently():
    pictures = inputs.pictures()
    assert 6 <= len(pictures) <= 8
    sides = [picture.shape[:2] for picture in pictures.values()]
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures.values())
    assert min(min(side) for side in sides) < 224 < 512 <= max(max(side) for side in sides)
    assert sum(height != width for height, width in sides) >= 5
    assert any(h > 2 * w for h, w in sides) and any(w > 2 * h for h, w in sides)
    for name, picture in pictures.items():
        assert picture.min() < 80 and picture.max() > 200, name
        assert len({picture[..., c].tobytes() for c in range(3)}) == 3, f"{name} has no colour"


def test_texts_show_each_way_of_preparing_texts():
    texts = inputs.TEXTS
    assert len(set(texts)) == len(texts) == 12
    assert all(text == text.strip() and "\n" not in text and text for text in texts)
    for trait in ("Zürich É МОСКВА", "_", "  ", "A Photo", "&amp;", "“", "-", "?", "猫"):  # noqa: RUF001
        assert any(trait in text for text in texts), trait
    assert min(map(len, texts)) <= 3 and len(texts[-1].split()) > 64


def test_written_inputs_are_the_bundled_ones(tmp_path):
    inputs.write(tmp_path / "in")
    files = sorted((tmp_path / "in").glob("*.png"))
    for file, (name, picture) in zip(files, inputs.pictures().items(), strict=True):
        assert name in file.name
        np.testing.assert_array_equal(np.asarray(Image.open(file)), picture)
    lines = (tmp_path / "in" / "texts.txt").read_bytes().decode().split("\n")
    assert tuple(lines) == (*inputs.TEXTS, "")
    assert "doctor" in (tmp_path / "in" / "README.txt").read_text()


def test_inputs_are_not_written_over_anything(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="in exists already; choose another name"):
        inputs.write(tmp_path / "in")
    with pytest.raises(ValueError, match=r"the folder .*nowhere does not exist"):
        inputs.write(tmp_path / "nowhere" / "in")
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_circles_are_those_of_transformers():
    small, large, wide = circles.pictures().values()
    assert (small.shape, large.shape, wide.shape) == (
        (224, 224, 3),
        (1024, 1024, 3),
        (224, 1024, 3),
    )
    for picture in (small, large, wide):
        colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
        assert colours == {(255, 0, 0), (0, 0, 255), (0, 128, 0)}
        height, width = picture.shape[:2]
        radius = min(width // 2, height // 2) // 8 * 7
        row = picture[height // 2]
        inside = np.flatnonzero((row != (255, 0, 0)).any(1))
        assert (inside[0], inside[-1]) == (width // 2 - radius, width // 2 + radius)
        # The border is as wide as a twentieth of the picture, however high that is.
        green = np.flatnonzero((row == (0, 128, 0)).all(1))
        assert abs(len(green) / 2 - width // 20) <= 1
    digest = hashlib.sha256(b"".join(p.tobytes() for p in (small, large, wide))).hexdigest()
    assert digest == "03e4e8bafeeb5758d4b93aa0e511c2d84b5c6e23ce63b6236f3eb2b4107e06d1"


def test_every_published_table_is_of_a_checkpoint_and_has_its_shape():
    names = {checkpoint.name for checkpoint in CHECKPOINTS}
    tables = {c.name: published_for(c) for c in CHECKPOINTS}
    assert names >= {*published_logits._APPLE_LOGITS, *circles.LOGITS_PER_TEXT, *SCALES}
    assert names >= {row.checkpoint for row in notebooks.TABLES.values()}
    assert sum(map(len, tables.values())) == 10 + 1 + 2 + 4
    for table in (table for found in tables.values() for table in found):
        shape = np.shape(table.logits)
        assert len(shape) == 2 and np.isfinite(table.logits).all()
        if table.lists is None:
            pictures = len(circles.SIZES) if table.drawn else len(table.urls)
            assert shape == (pictures, len(table.texts))
        assert all(url.endswith(f"/{name}") for name, url in table.urls.items())
    assert published_for(None) == ()


def test_published_probabilities_follow_from_logits():
    """big_vision's notebook prints 10.4 % and 42.8 % for the first picture of L/16 384."""
    apples, notebook = published_for(find("siglip_l16_384"))
    first = np.array(notebook.logits[0][:2]) + SCALES["siglip_l16_384"].bias
    np.testing.assert_allclose(first, apples.logits[0], atol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-first)), [0.104, 0.428], atol=5e-4)


def test_notebook_numbers_are_those_that_were_saved():
    file = SHARED / "spec" / "demo_logits.json"
    if not file.exists():
        pytest.skip("../shared/spec is not here")
    saved = json.loads(file.read_text())
    assert len(saved) == len(notebooks.TABLES)
    for table in notebooks.TABLES.values():
        key = table.cell.replace(", cell ", ":cell")
        expected = saved[key]["logits_t_times_cos_without_bias"]
        np.testing.assert_allclose(table.logits(), expected, atol=5.1e-5)
        if key != "SigLIP2_demo.ipynb:cell12":  # where the notebook sets its own bias
            assert saved[key]["b"] == SCALES[table.checkpoint].bias


def listed(folder, pictures="a.png\n\nb.png\n", texts="one\ntwo\n"):
    (folder / "t").mkdir()
    (folder / "t" / "pictures.txt").write_text(pictures)
    (folder / "t" / "texts.txt").write_text(texts)
    Image.new("RGB", (4, 4)).save(folder / "t" / "a.png")
    Image.new("RGB", (4, 4)).save(folder / "t" / "b.png")


def table(**kw):
    defaults = {"name": "t", "source": "s", "profile": "big_vision", "tolerance": 1e-3}
    return Published(**defaults, logits=((1.0, 2.0), (3.0, 4.0)), **kw)


def test_what_a_table_needs_is_said(tmp_path):
    files = table(urls={"x.jpg": "http://h/x.jpg", "y.jpg": "http://h/y.jpg"}, texts=("a", "b"))
    everything = ("x.jpg (http://h/x.jpg)", "y.jpg (http://h/y.jpg)")
    assert files.inputs(None).missing == files.inputs(tmp_path).missing == everything
    (tmp_path / "x.jpg").touch()
    assert files.inputs(tmp_path).missing == ("y.jpg (http://h/y.jpg)",)
    (missing,) = table(lists="those of cell 1").inputs(tmp_path).missing
    assert missing == (
        "t/pictures.txt, the file names of 2 images, and t/texts.txt, 2 texts, one a line: "
        "those of cell 1"
    )


def test_lists_of_pictures_and_texts(tmp_path):
    listed(tmp_path)
    found = table(lists="x").inputs(tmp_path)
    assert (list(found.pictures), found.texts, found.missing) == (
        ["a.png", "b.png"],
        ("one", "two"),
        (),
    )
    (tmp_path / "t" / "a.png").unlink()
    assert table(lists="x").inputs(tmp_path).missing == ("t/a.png",)
    (tmp_path / "t" / "texts.txt").write_text("one\n")
    with pytest.raises(ValueError, match=r"texts.txt: expected 2 texts, one a line, got 1"):
        table(lists="x").inputs(tmp_path)
    (tmp_path / "t" / "texts.txt").unlink()
    with pytest.raises(ValueError, match=r"texts.txt: cannot be read as a list of texts"):
        table(lists="x").inputs(tmp_path)
