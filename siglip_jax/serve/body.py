"""The body of a request: read within bounds, and checked strictly."""

import contextlib
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from siglip_jax.messages import did_you_mean
from siglip_jax.serve.admission import Admission
from siglip_jax.serve.errors import ApiError

_T = TypeVar("_T")
_FIELDS = 20_000  # of a form


async def read_body(
    request: Request, most: int, admission: Admission, held: contextlib.ExitStack
) -> bytes:
    """The body, of at most `most` bytes, which count as held until `held` is closed.

    Raises:
      ApiError: 413 for a larger one, 429 where too much is held.
      starlette.requests.ClientDisconnect: if the client went.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdigit():
        if int(stated) > most:
            raise _too_large(int(stated), most)
        held.enter_context(admission.bytes(int(stated)))
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(size, most)
        if not stated:
            held.enter_context(admission.bytes(len(part)))
        parts.append(part)
    return b"".join(parts)


def _too_large(size: int, most: int) -> ApiError:
    return ApiError(
        413,
        f"the body has {size:,} bytes or more; at most {most:,} are taken; send fewer or smaller "
        "images a request",
        code="body_too_large",
    )


def parsed(data: bytes, kind: type[_T]) -> _T:
    """JSON as a type of msgspec, strictly: no unknown field, nothing twice, no NaN.

    Raises:
      ApiError: 400 that names the field.

    >>> parsed(b"[1, 2]", list[int])
    [1, 2]
    >>> parsed(b'{"a": 1, "a": 2}', dict)
    Traceback (most recent call last):
    siglip_jax.serve.errors.ApiError: the body names 'a' twice
    """
    return converted(_json(data), kind)


def converted(value: Any, kind: type[_T]) -> _T:
    """What JSON or a form says as a type of msgspec.

    Raises:
      ApiError: 400 that names the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        param = where.rstrip("`").removeprefix(".") or None
        if "unknown field" in said:
            name = said.rpartition("`")[0].rpartition("`")[2]
            fields = getattr(kind, "__struct_fields__", ()) if param is None else ()
            hint = did_you_mean(name, fields, otherwise=_there_are(fields))
            said, param = f"there is no field {name!r}{hint}", param or name
            raise ApiError(400, said, param=param) from None
        said = said[:1].lower() + said[1:]
        if "missing required field" in said:
            name = said.rpartition("`")[0].rpartition("`")[2]
            raise ApiError(
                400, f"the field {name!r} is missing", param=f"{param}.{name}" if param else name
            ) from None
        raise ApiError(400, f"{param}: {said}" if param else said, param=param) from None


def _there_are(fields: tuple[str, ...]) -> str:
    return f"; there are {', '.join(fields)}" if fields else ""


def _json(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None
    except UnicodeDecodeError:
        raise ApiError(400, "the body is no UTF-8", code="invalid_json") from None
    except ValueError as error:
        said = "it is empty" if not data.strip() else str(error)
        raise ApiError(400, f"the body is no JSON: {said}", code="invalid_json") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ApiError(400, f"the body names {twice[:100]!r} twice", param=twice[:100])
    return found


def _no_number(text: str) -> Any:
    raise ApiError(400, f"the body has {text}, which is no JSON", code="invalid_json")


async def read_form(
    request: Request, data: bytes, most_files: int
) -> list[tuple[str, str | bytes]]:
    """The fields of a multipart form in order, files as bytes.

    Raises:
      ApiError: 400 if it is damaged.
    """

    async def stream() -> AsyncGenerator[bytes]:
        yield data

    parser = MultiPartParser(
        request.headers, stream(), max_files=most_files, max_fields=_FIELDS, max_part_size=1 << 20
    )
    # What is held in memory by then is written to no disk.
    parser.spool_max_size = len(data) + 1
    fields: list[tuple[str, str | bytes]] = []
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            fields.append((name, await value.read() if isinstance(value, UploadFile) else value))
        await form.close()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        said = getattr(error, "message", None) or str(error)
        raise ApiError(400, f"the form is damaged: {said}", code="invalid_form") from None
    return fields


def grouped(fields: list[tuple[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The fields of a form by name, each with all its values in order."""
    names = list(dict.fromkeys(name for name, _ in fields))
    for name in names:
        yield name, [value for other, value in fields if other == name]
