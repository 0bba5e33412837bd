"""Pictures of emoji: drawn from a colour font, or read from another artist's files.

Every picture is a square RGBA image of `SIDE` pixels, kept as PNG: lossless, with
alpha, so that training can lay any background behind it.
"""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

SIDE = 72
# The one size of the bitmaps in NotoColorEmoji.ttf.
_STRIKE = 109
# Alpha from which a pixel counts as painted.
_PAINTED = 16


def open_font(path: str | Path) -> ImageFont.FreeTypeFont:
    """The emoji font.

    Raises:
      ValueError: if the file is absent or no colour font of bitmaps of 109 pixels, or
        Pillow lacks raqm, without which sequences fall apart.
    """
    if not features.check("raqm"):
        raise ValueError(
            "Pillow lacks raqm, which lays emoji sequences out: install libraqm, or a Pillow wheel"
        )
    try:
        return ImageFont.truetype(str(path), _STRIKE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read as the emoji font ({error}); install Debian's "
            "fonts-noto-color-emoji, or give --font PATH of NotoColorEmoji.ttf"
        ) from error


def draw(font: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    """One emoji, or None where the font has no single drawing of it.

    A sequence that the font does not know comes out as its parts, side by side, and a
    character that it does not know as nothing; neither is a picture of the emoji.
    """
    glyph = font.getbbox("\N{GRINNING FACE}")
    width, height = glyph[2], glyph[3]
    if font.getlength(text) > 1.5 * font.getlength("\N{GRINNING FACE}"):
        return None
    side = max(width, height)
    canvas = Image.new("RGBA", (side, side))
    corner = ((side - width) // 2, (side - height) // 2)
    ImageDraw.Draw(canvas).text(corner, text, font=font, embedded_color=True)
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS) if _painted(canvas) else None


def _painted(picture: Image.Image) -> bool:
    return picture.getchannel("A").getextrema()[1] >= _PAINTED


def draw_all(font: ImageFont.FreeTypeFont, texts: Iterable[str]) -> dict[str, bytes]:
    """Text -> PNG, for each emoji that the font draws."""
    drawn = ((text, draw(font, text)) for text in texts)
    return {text: png(picture) for text, picture in drawn if picture is not None}


def png(picture: Image.Image) -> bytes:
    """`picture` as PNG, with the colour of transparent pixels set to zero."""
    clear = Image.new("RGBA", picture.size)
    clear.paste(picture, mask=picture.getchannel("A").point(lambda alpha: 255 if alpha else 0))
    data = io.BytesIO()
    clear.save(data, "PNG")
    return data.getvalue()


def twemoji(source: str | Path) -> dict[str, bytes]:
    """Key -> PNG, from the npm package `emoji-datasource-twitter`.

    Args:
      source: its .tgz as `npm pack` writes it, or the unpacked folder.

    Raises:
      ValueError: if there are no pictures of 64 pixels in it.
    """
    pictures = {}
    for name, data in _files(Path(source)):
        with Image.open(io.BytesIO(data)) as picture:
            square = picture.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pictures[name.removesuffix(".png")] = png(square)
    if not pictures:
        raise ValueError(
            f"{source}: no pictures img/twitter/64/*.png in it; expected the npm package "
            "emoji-datasource-twitter (npm pack emoji-datasource-twitter@16.0.0)"
        )
    return dict(sorted(pictures.items()))


def _files(source: Path) -> Iterable[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.glob("**/img/twitter/64/*.png")):
            yield path.name, path.read_bytes()
        return
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                path = Path(member.name)
                if path.suffix == ".png" and path.parts[-4:-1] == ("img", "twitter", "64"):
                    yield path.name, archive.extractfile(member).read()
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{source}: cannot be read as an npm package: {error}") from error
