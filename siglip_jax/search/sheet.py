"""Contact sheets of what was found: an image, or a page that needs no other file."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from siglip_jax.preprocessing.decode import decode_image
from siglip_jax.preprocessing.profiles import ImageProfile
from siglip_jax.weights.staging import staged

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_SIDE, _GAP, _COLUMNS = 176, 12, 6  # pixels of a thumbnail and around it; thumbnails in a row
_LINE = 16
# For people: transparent parts on white, images turned as their cameras say.
_SEEN = ImageProfile(
    decode="fastdct", resize="tf_bilinear", res=_SIDE, background=(255, 255, 255), exif=True
)
_STYLE = """body{font:14px sans-serif;margin:24px;color:#222}h2{font-size:16px}
.hits{display:flex;flex-wrap:wrap;gap:12px}.hit{width:176px}
.hit img,.hit p{width:176px;height:176px;object-fit:contain;background:#eee;margin:0;display:block}
.hit p{padding:8px;box-sizing:border-box;overflow:hidden}
.hit div{overflow-wrap:anywhere;font-size:12px}"""


class Shown(NamedTuple):
    """A hit on a sheet.

    Attributes:
      key: the item's.
      score: as a person reads it.
      image: bytes or path; None where there is no image.
      text: of an item that is a text.
    """

    key: str
    score: str
    image: bytes | str | None = None
    text: str | None = None


def write_sheet(path: Path, found: Sequence[tuple[str, Sequence[Shown]]]) -> None:
    """Writes hits with their scores and keys, under the query that found them.

    What has no image that can be read is a field with its key, or its text.

    Args:
      path: ends in .png or .html; replaced as a whole.
      found: queries and what each has found.

    Raises:
      ValueError: if it ends in something else.
    """
    check_sheet(path)
    with staged(path) as temporary:
        if path.suffix.lower() == ".png":
            _png(found).save(temporary, "PNG")
        else:
            temporary.write_text(_page(found), "utf-8")


def check_sheet(path: Path) -> None:
    """Raises a ValueError if a sheet cannot be written to `path`."""
    if path.suffix.lower() not in (".png", ".html"):
        raise ValueError(f"a sheet must end in .png or .html, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: the folder {path.parent} does not exist")


def _thumbnail(image: bytes | str | None) -> Image.Image | None:
    if image is None:
        return None
    try:
        picture = Image.fromarray(decode_image(image, _SEEN))
    except ValueError:
        return None
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _png(found: Sequence[tuple[str, Sequence[Shown]]]) -> Image.Image:
    wide = max(1, min(_COLUMNS, max((len(hits) for _, hits in found), default=1)))
    width, cell = _GAP + wide * (_SIDE + _GAP), _SIDE + 2 * _LINE + _GAP
    rows = [-(-len(hits) // wide) for _, hits in found]
    height = _GAP + sum(2 * _LINE + count * cell for count in rows)
    sheet = Image.new("RGB", (width, max(height, 1)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    top = _GAP
    for (query, hits), count in zip(found, rows, strict=True):
        draw.text((_GAP, top), _fitted(query, width - 2 * _GAP, font), "black", font)
        top += 2 * _LINE
        for number, hit in enumerate(hits):
            x = _GAP + number % wide * (_SIDE + _GAP)
            y = top + number // wide * cell
            picture = _thumbnail(hit.image)
            if picture is None:
                draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), "#eeeeee")
                words = _wrapped(hit.text or hit.key, _SIDE - 16, font, (_SIDE - 16) // _LINE)
                draw.multiline_text((x + 8, y + 8), words, "#666666", font)
            else:
                place = (x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2)
                sheet.paste(picture, place)
            draw.text((x, y + _SIDE + 2), hit.score, "black", font)
            draw.text((x, y + _SIDE + _LINE), _fitted(hit.key, _SIDE, font), "#666666", font)
        top += count * cell
    return sheet


def _fitted(text: str, width: int, font: Font) -> str:
    """The end of a text that is too wide: names differ there."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text


def _wrapped(text: str, width: int, font: Font, lines: int) -> str:
    made = [""]
    for letter in " ".join(text.split()):
        if font.getlength(made[-1] + letter) > width:
            made.append("")
        made[-1] += letter
    return "\n".join(made[:lines])


def _page(found: Sequence[tuple[str, Sequence[Shown]]]) -> str:
    parts = ["<!doctype html><meta charset=utf-8><title>siglip-jax search</title>"]
    parts.append(f"<style>{_STYLE}</style>")
    for query, hits in found:
        parts.append(f"<h2>{html.escape(query)}</h2><div class=hits>")
        for hit in hits:
            picture = _thumbnail(hit.image)
            key = html.escape(hit.key)
            if picture is None:
                shown = f"<p>{html.escape(hit.text or hit.key)}</p>"
            else:
                stream = io.BytesIO()
                picture.save(stream, "JPEG", quality=85)
                data = base64.b64encode(stream.getvalue()).decode()
                shown = f'<img src="data:image/jpeg;base64,{data}" alt="{key}">'
            parts.append(f"<div class=hit>{shown}<div>{hit.score}<br>{key}</div></div>")
        parts.append("</div>")
    return "\n".join(parts) + "\n"
