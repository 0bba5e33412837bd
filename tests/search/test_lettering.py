"""Letters of any script on sheets, with a font made for the test."""

import numpy as np
import pytest
from PIL import Image

from siglip_jax.search import lettering
from siglip_jax.search.lettering import Lettering
from siglip_jax.search.sheet import Shown, write_sheet


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """The folder of the only installed fonts."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(lettering, "_folders", lambda: [folder, tmp_path / "none"])
    lettering._installed.cache_clear()
    yield folder
    lettering._installed.cache_clear()


def add_font(folder, letters):
    """A font that draws each of `letters` as a square."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def square(side):
        pen = TTGlyphPen(None)
        corners = [(0, 0), (0, side), (side, side), (side, 0)]
        pen.moveTo(corners[0])
        for corner in corners[1:]:
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):x}" for letter in letters})
    builder.setupGlyf({name: square(900 if name != ".notdef" else 200) for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / "Squares-Regular.ttf")


def ink(text):
    sheet, drawn = Image.new("RGB", (120, 30), "white"), Lettering(12)
    drawn.draw(sheet, (4, 4), text, "black")
    return (np.asarray(sheet) < 128).all(-1), drawn


def test_a_letter_of_an_installed_font(fonts):
    add_font(fonts, "日本")
    (fonts / "damaged.ttf").write_bytes(b"no font")
    pixels, drawn = ink("a日 日b")
    assert drawn.problem() is None
    columns = np.flatnonzero(pixels.sum(axis=0) >= 10)  # squares of 0.9 of 12 pixels
    assert 18 <= len(columns) <= 24
    plain = Lettering(12)
    assert drawn.length("日日") == 24
    assert plain.length("ab") == pytest.approx(plain.length("a") + plain.length("b"), abs=1)


def test_what_no_font_has_is_said(fonts, tmp_path):
    add_font(fonts, "日")
    _, drawn = ink("日本 क 🐶")
    assert list(drawn.missing) == ["本", "क", "🐶"]
    assert drawn.problem() == (
        "no installed font has 本 क 🐶; boxes are drawn for them: install Noto Sans CJK (Debian: "
        "fonts-noto-cjk) and Noto Sans (Debian: fonts-noto-core) and Noto Color Emoji (Debian: "
        "fonts-noto-color-emoji), or write an .html sheet"
    )
    found = [("ab", [Shown("猫.png", "0.5"), Shown("x", "0.4", None, "猫猫猫猫 " * 9)])]
    with pytest.warns(UserWarning, match=r"s\.png: no installed font has 猫; boxes are drawn"):
        write_sheet(tmp_path / "s.png", found)
    write_sheet(tmp_path / "s.html", found)  # a browser has fonts


def test_latin_letters_open_no_other_font(fonts, monkeypatch):
    monkeypatch.setattr(lettering, "_folders", lambda: pytest.fail("fonts were looked for"))
    assert ink("A large a/b_1.jpg")[1].problem() is None
