"""What stands for an image in a request, and its bytes."""

import binascii
import re
from collections.abc import Awaitable, Callable

from siglip_jax.serve.errors import ApiError

Fetch = Callable[[str, str], Awaitable[bytes]]

_URI = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(;[^;,]*)*),", re.IGNORECASE)
_WEB = ("http://", "https://")


def is_image_uri(text: str) -> bool:
    """Whether a string stands for an image wherever it is.

    >>> is_image_uri("data:image/png;base64,AAAA"), is_image_uri("a photo")
    (True, False)
    """
    return text[:11].lower() == "data:image/"


async def image_bytes(value: str, param: str, fetch: Fetch | None) -> bytes:
    """The file that a data URI, base64 or a URL stands for.

    Args:
      value: of a request.
      param: where it stands, for messages.
      fetch: reads a URL; None where none is read.

    Raises:
      ApiError: 400 if it is none of these, or no URL is read.
    """
    if value[:8].lower().startswith(_WEB):
        if fetch is None:
            raise ApiError(
                400,
                f"{param}: this service fetches no URLs; send the image as a data URI or base64",
                param=param,
                code="url_not_allowed",
            )
        return await fetch(value, param)
    if value[:5].lower() == "data:":
        return _from_uri(value, param)
    if not value:
        raise ApiError(400, f"{param}: the image is empty", param=param)
    return _from_base64(value, param, "expected a data URI, base64 or a URL, and it is none")


def _from_uri(value: str, param: str) -> bytes:
    head = _URI.match(value[:1024])
    if head is None:
        raise ApiError(
            400, f"{param}: expected data:image/TYPE;base64,DATA, got {value[:40]!r}", param=param
        )
    if not head["type"].lower().startswith("image/"):
        raise ApiError(
            400,
            f"{param}: expected a data URI of an image (data:image/png;base64,...), got one of "
            f"{head['type'] or 'no type'}",
            param=param,
        )
    if not head["parameters"].lower().endswith(";base64"):
        raise ApiError(400, f"{param}: the data URI must say ;base64", param=param)
    return _from_base64(value[head.end() :], param, "the base64 of the data URI is damaged")


def _from_base64(text: str, param: str, problem: str) -> bytes:
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except UnicodeEncodeError:
        raise ApiError(400, f"{param}: {problem}: it has other letters", param=param) from None
    except binascii.Error as error:
        raise ApiError(400, f"{param}: {problem}: {_plain(error)}", param=param) from None
    if not data:
        raise ApiError(400, f"{param}: the image is empty", param=param)
    return data


def _plain(error: binascii.Error) -> str:
    """binascii's words, with what to do where it is the usual mistake."""
    said = str(error)
    cut = "padding" in said.lower() or "multiple of 4" in said
    return "its end is missing" if cut else said[:1].lower() + said[1:]
