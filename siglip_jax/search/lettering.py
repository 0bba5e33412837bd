"""Text on an image in whatever script, by the fonts of this machine."""

import contextlib
import functools
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_ENDINGS = (".ttf", ".otf", ".ttc", ".otc")
_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono", "serif")
_BITMAP = 109  # pixels, the only size of the usual fonts of coloured emoji
_NO_LETTER = "\U0010fffe"  # never assigned: shows what a font draws for what it lacks
_JOINED = ("Mn", "Mc", "Me", "Cf", "Sk", "Zs")  # drawn with the letter before
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH")


class Lettering:
    """Draws text with Pillow's own font and, letters that it lacks, with installed ones.

    Attributes:
      missing: letters that were to be drawn and that no font has, in their order.
    """

    def __init__(self, size: int = 12) -> None:
        self.missing: dict[str, None] = {}
        self._size = size
        self._own: Font = ImageFont.load_default(size)
        self._known: dict[str, Font] = {}

    def length(self, text: str) -> float:
        """Width of a line in pixels."""
        return sum(self._width(font, part) for font, part in self._runs(text))

    def draw(self, sheet: Image.Image, place: tuple[float, float], text: str, fill: str) -> None:
        """A line on `sheet`, of which `place` is the upper left corner."""
        draw = ImageDraw.Draw(sheet)
        x, y = place
        for font, part in self._runs(text):
            if _size(font) == _BITMAP:
                picture = Image.new("RGBA", (round(font.getlength(part)) + 1, _BITMAP + 20))
                ImageDraw.Draw(picture).text((0, 0), part, font=font, embedded_color=True)
                scale = self._size / _BITMAP
                small = picture.resize(
                    (max(1, round(picture.width * scale)), round(picture.height * scale))
                )
                sheet.paste(small, (round(x), round(y)), small)
            elif isinstance(font, ImageFont.FreeTypeFont):
                draw.text((x, y + self._size), part, fill, font, anchor="ls")  # on one base line
            else:
                draw.text((x, y), part, fill, font)
            x += self._width(font, part)

    def problem(self) -> str | None:
        """One line that says what could not be drawn, and what to install for it."""
        if not self.missing:
            return None
        wanted: dict[str, None] = {}
        for letter in self.missing:
            script = unicodedata.name(letter, "?").split()[0]
            if script.startswith(_EAST_ASIAN):
                wanted["Noto Sans CJK (Debian: fonts-noto-cjk)"] = None
            elif unicodedata.category(letter) == "So":
                wanted["Noto Color Emoji (Debian: fonts-noto-color-emoji)"] = None
            else:
                wanted["Noto Sans (Debian: fonts-noto-core)"] = None
        letters = " ".join(list(self.missing)[:5])
        more = f" and {len(self.missing) - 5:,} more" if len(self.missing) > 5 else ""
        return (
            f"no installed font has {letters}{more}; boxes are drawn for them: install "
            f"{' and '.join(wanted)}, or write an .html sheet"
        )

    def _width(self, font: Font, part: str) -> float:
        width = font.getlength(part)
        return width * self._size / _BITMAP if _size(font) == _BITMAP else width

    def _runs(self, text: str) -> Iterator[tuple[Font, str]]:
        """Parts of a line, each with its font."""
        font, part = self._own, ""
        for letter in text:
            # In a script from right to left a space is part of the line, not between two.
            space = letter == " " and _size(font) == _BITMAP
            joined = not space and unicodedata.category(letter) in _JOINED
            own = font if joined else self._font(letter)
            if own is not font and part:
                yield font, part
                part = ""
            font, part = own, part + letter
        if part:
            yield font, part

    def _font(self, letter: str) -> Font:
        if letter not in self._known:
            self._known[letter] = self._own
            if not _has(self._own, letter):
                found = next((f for f in _installed(self._size) if _has(f, letter)), None)
                if found is None:
                    self.missing[letter] = None
                else:
                    self._known[letter] = found
        return self._known[letter]


def _has(font: Font, letter: str) -> bool:
    """Whether a font draws a letter as something else than a letter that none has."""
    try:
        return _drawn(font, letter) != _drawn(font, _NO_LETTER)
    except (OSError, ValueError, UnicodeError):  # of a damaged font, or one of Latin letters only
        return False


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = font.getmask(letter)  # bytes, which Pillow's annotation does not know
    return mask.size, bytes(mask)


def _size(font: Font) -> float:
    return getattr(font, "size", 0)


@functools.lru_cache(maxsize=4)
def _installed(size: int) -> tuple[Font, ...]:
    """All fonts of this machine that can be read; upright sans first."""
    found = {
        path
        for folder in _folders()
        for path in folder.rglob("*")
        if path.name.lower().endswith(_ENDINGS)
    }

    def plainness(path: Path) -> tuple[int, str]:
        return sum(style in path.name.lower() for style in _STYLES), path.name

    fonts: list[Font] = []
    for path in sorted(found, key=plainness):
        for pixels in (size, _BITMAP):
            with contextlib.suppress(OSError):
                fonts.append(ImageFont.truetype(str(path), pixels))
                break
    return tuple(fonts)


def _folders() -> list[Path]:
    """Where systems keep fonts."""
    home = Path.home()
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    data = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [home / ".fonts", *(Path(each) / "fonts" for each in (data, *shared.split(":")))]
