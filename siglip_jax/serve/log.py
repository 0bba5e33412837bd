"""One line of JSON for each request: what an operator searches, nothing that a client sent."""

import contextlib
import contextvars
import datetime
import logging
import logging.handlers
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FACTS = ("images", "texts", "model")
_LONGEST = 200  # characters of a path
_GONE = 499  # what nginx writes for a client that went before it had an answer

# Of the request whose task, or a task of it, asks.
_noted: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("noted")

Write = Callable[[dict[str, Any]], None]


def note(**facts: int | str) -> None:
    """Says of the request in hand what its log line shall have: images, texts, model.

    Raises:
      ValueError: for anything else, which might be what a client sent.

    >>> note(images=2, model="emoji")
    """
    if wrong := sorted(set(facts) - set(_FACTS)):
        raise ValueError(f"a log line has {', '.join(_FACTS)}, got {', '.join(wrong)}")
    _noted.get({}).update(facts)


@contextlib.contextmanager
def writer(file: Path | None) -> Iterator[Write]:
    """Writes lines to the end of a file, which may be moved away meanwhile, or to stderr.

    Raises:
      OSError: if it cannot be written to.
    """
    if file is None:
        handler: logging.Handler = logging.StreamHandler()
    else:
        handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))

    def write(line: dict[str, Any]) -> None:
        # Without the tree of loggers, so that the settings of a host change nothing.
        text = msgspec.json.encode(line).decode()
        handler.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))

    try:
        yield write
    finally:
        handler.close()


class RequestLog:
    """Writes a line for each request, and gives each an id that its answer has, too.

    Args:
      app: that is behind.
      write: takes the line; None where there is to be none.
    """

    def __init__(self, app: ASGIApp, write: Write | None) -> None:
        self._app, self._write = app, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        # One that could be mistaken for something else in a log is not taken over.
        name = given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex
        seen: dict[str, int] = {"status": _GONE, "bytes": 0}
        facts: dict[str, Any] = {}
        _noted.set(facts)

        async def counted() -> Message:
            message = await receive()
            seen["bytes"] += len(message.get("body", b""))
            return message

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = name
                seen["status"] = message["status"]
            await send(message)

        begun = time.perf_counter()
        try:
            await self._app(scope, counted, named)
        except Exception:
            seen["status"] = 500
            raise
        finally:
            if self._write is not None:
                self._write(
                    {
                        "time": datetime.datetime.now(datetime.UTC).isoformat(
                            timespec="milliseconds"
                        ),
                        "id": name,
                        "method": scope["method"],
                        "path": scope["path"][:_LONGEST],
                        "status": seen["status"],
                        "ms": round(1000 * (time.perf_counter() - begun), 1),
                        "bytes": seen["bytes"],
                        **facts,
                    }
                )
