"""Contact sheets of what was found: an image, or a page that needs no other file."""

import base64
import html
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image, ImageDraw

from siglip_jax.data.storage import is_remote
from siglip_jax.search.lettering import Lettering
from siglip_jax.search.thumbnails import jpeg, thumbnail
from siglip_jax.weights.staging import staged

_SIDE, _GAP, _COLUMNS = 176, 12, 6  # pixels of a thumbnail and around it; thumbnails in a row
_LINE = 16
# Schemes of URLs that a page links to; a key may be any text.
_LINKED = ("https://", "http://", "gs://", "s3://", "hf://", "az://", "abfs://")
_STYLE = """body{font:14px sans-serif;margin:24px;color:#222}h2{font-size:16px}
.hits{display:flex;flex-wrap:wrap;gap:12px}.hit{width:176px}
.hit img,.hit p{width:176px;height:176px;object-fit:contain;background:#eee;margin:0;display:block}
.hit p{padding:8px;box-sizing:border-box;overflow:hidden}
.hit div{overflow-wrap:anywhere;font-size:12px}a{color:inherit}"""


class Shown(NamedTuple):
    """A hit on a sheet.

    Attributes:
      key: the item's.
      score: as a person reads it.
      image: bytes or path; None where there is no image.
      text: of an item that is a text.
      file: absolute path or URL that a page links to.
    """

    key: str
    score: str
    image: bytes | str | None = None
    text: str | None = None
    file: str | None = None


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
            lettering = Lettering(12)
            _png(found, lettering).save(temporary, "PNG")
            if problem := lettering.problem():
                warnings.warn(f"{path}: {problem}", stacklevel=2)
        else:
            temporary.write_text(_page(found, path.parent), "utf-8")


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
        return thumbnail(image, _SIDE)
    except ValueError:
        return None


def _png(found: Sequence[tuple[str, Sequence[Shown]]], lettering: Lettering) -> Image.Image:
    wide = max(1, min(_COLUMNS, max((len(hits) for _, hits in found), default=1)))
    width, cell = _GAP + wide * (_SIDE + _GAP), _SIDE + 2 * _LINE + _GAP
    rows = [-(-len(hits) // wide) for _, hits in found]
    height = _GAP + sum(2 * _LINE + count * cell for count in rows)
    sheet = Image.new("RGB", (width, max(height, 1)), "white")
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for (query, hits), count in zip(found, rows, strict=True):
        title = _fitted(query, width - 2 * _GAP, lettering)
        lettering.draw(sheet, (_GAP, top), title, "black")
        top += 2 * _LINE
        for number, hit in enumerate(hits):
            x = _GAP + number % wide * (_SIDE + _GAP)
            y = top + number // wide * cell
            picture = _thumbnail(hit.image)
            if picture is None:
                draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), "#eeeeee")
                lines = _wrapped(hit.text or hit.key, _SIDE - 16, lettering)
                for line, words in enumerate(lines[: (_SIDE - 16) // _LINE]):
                    lettering.draw(sheet, (x + 8, y + 8 + line * _LINE), words, "#666666")
            else:
                place = (x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2)
                sheet.paste(picture, place)
            score = _fitted(hit.score, _SIDE, lettering)
            lettering.draw(sheet, (x, y + _SIDE + 2), score, "black")
            key = _fitted(hit.key, _SIDE, lettering)
            lettering.draw(sheet, (x, y + _SIDE + _LINE), key, "#666666")
        top += count * cell
    return sheet


def _fitted(text: str, width: int, lettering: Lettering) -> str:
    """The end of a text that is too wide: names differ there."""
    text = " ".join(text.split())
    if lettering.length(text) <= width:
        return text
    while text and lettering.length("..." + text) > width:
        text = text[1:]
    return "..." + text


def _wrapped(text: str, width: int, lettering: Lettering) -> list[str]:
    made = [""]
    for letter in " ".join(text.split()):
        if lettering.length(made[-1] + letter) > width:
            made.append("")
        made[-1] += letter
    return made


def _link(file: str | None, folder: Path) -> str | None:
    """What a page in `folder` calls a file: relative to it where it is below, so that both move.

    >>> _link("/a/b/c d.jpg", Path("/a")), _link("/x/c.jpg", Path("/a"))
    ('b/c%20d.jpg', 'file:///x/c.jpg')
    >>> _link("https://host/a.jpg?b", Path("/a")), _link("javascript://x", Path("/a"))
    ('https://host/a.jpg?b', None)
    """
    if file is None:
        return None
    if is_remote(file):
        return file if file.startswith(_LINKED) else None
    path, folder = Path(file), folder.resolve()
    if path.is_relative_to(folder):
        return quote(path.relative_to(folder).as_posix())
    return path.as_uri()


def _page(found: Sequence[tuple[str, Sequence[Shown]]], folder: Path) -> str:
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
                data = base64.b64encode(jpeg(picture)).decode()
                shown = f'<img src="data:image/jpeg;base64,{data}" alt="{key}">'
            if link := _link(hit.file, folder):
                opening = f'<a href="{html.escape(link)}">'
                shown, key = f"{opening}{shown}</a>", f"{opening}{key}</a>"
            parts.append(
                f"<div class=hit>{shown}<div>{html.escape(hit.score)}<br>{key}</div></div>"
            )
        parts.append("</div>")
    return "\n".join(parts) + "\n"
