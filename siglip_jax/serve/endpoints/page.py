"""`GET /`: the web page, its files, and images to try it with."""

import functools
import json
from pathlib import Path
from typing import Any

import msgspec
from starlette.responses import Response

from siglip_jax.fetch import BUNDLED
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.operation import Call, Operation

_SHOWN = 5  # examples; labels are of all
_FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline, and no page around this one.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a new version is seen at once
}


class Example(msgspec.Struct):
    """An image to try, and labels of it and of others."""

    name: str
    path: str
    labels: list[str]


class Examples(msgspec.Struct):
    """All of them."""

    pictures: list[Example]


async def page(call: Call) -> Response:
    """The page."""
    return _file("index.html")


async def file(call: Call) -> Response:
    """A file of the page, by its name among those that there are."""
    name = call.path["name"]
    if name not in _files():
        raise ApiError(404, f"the page has no file {name[:100]!r}", param="name")
    return _file(name)


async def examples(call: Call) -> Examples:
    """Images to try."""
    return Examples(_examples())


async def example(call: Call) -> Response:
    """One of these images."""
    name = call.path["name"]
    if name not in {each.path.rpartition("/")[2] for each in _examples()}:
        raise ApiError(404, f"there is no example {name[:100]!r}", param="name")
    data = (BUNDLED["siglip_emoji"] / "pictures" / name).read_bytes()
    return Response(data, media_type="image/webp", headers=HEADERS)


@functools.cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}


def _file(name: str) -> Response:
    return Response(_files()[name], media_type=_TYPES[Path(name).suffix], headers=HEADERS)


@functools.cache
def _examples() -> list[Example]:
    # Of the bundled model; others know emoji as well.
    demo = json.loads((BUNDLED["siglip_emoji"] / "demo.json").read_text("utf-8"))
    named = [(each["names"]["en"], each["file"].rpartition("/")[2]) for each in demo["pictures"]]
    labels = [name for name, _ in named]
    return [Example(name, f"static/examples/{file}", labels) for name, file in named[:_SHOWN]]


def _get(path: str, handle: Any, summary: str, gives: Any = None) -> Operation:
    return Operation(
        method="GET", path=path, handle=handle, summary=summary, gives=gives, admitted=False
    )


OPERATIONS = (
    _get("/", page, "The web page"),
    _get("/static/examples.json", examples, "Images to try on the web page", Examples),
    _get("/static/examples/{name}", example, "One of these images"),
    _get("/static/{name}", file, "A file of the web page"),
)
