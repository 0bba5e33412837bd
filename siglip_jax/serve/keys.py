"""API keys: which there are, and that whoever asks has one of them."""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from siglip_jax.regular_file import read_regular
from siglip_jax.serve.errors import ApiError

VARIABLE = "SIGLIP_JAX_API_KEYS"
_LARGEST = 1 << 20  # bytes of a file of keys
_COMMENT = re.compile(r"(^|\s)#.*")  # a key may have one within
# What probes ask for has nothing of the models in it; a browser asks for the page before a
# person has typed a key into it.
_OPEN = ("/health", "/ping", "/v2/health", "/static")


class Keys:
    """Keys, of which no copy is kept and which nothing prints.

    Args:
      keys: each of visible ASCII characters.

    Raises:
      ValueError: if one has other characters; says which, without the key.

    >>> keys = Keys(["secret-1", "secret-2"])
    >>> "secret-2" in keys, "secret" in keys, keys
    (True, False, <2 API keys>)
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests: list[bytes] = []
        for index, key in enumerate(keys, 1):
            if not key or any(not "!" <= character <= "~" for character in key):
                raise ValueError(f"API key {index} must be visible ASCII characters, no spaces")
            self._digests.append(_digest(key))

    def __contains__(self, key: str) -> bool:
        """In the same time whichever key it is, or none."""
        digest = _digest(key)
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(found)

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"<{len(self)} API keys>"


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of a file, a line each, `#` before comments; and of `SIGLIP_JAX_API_KEYS`.

    Args:
      file: default: those of the variable only.
      environment: in which the variable has keys with spaces or commas between.

    Raises:
      ValueError: if others may read the file, it has no keys, or a line is none; says which.
      OSError: if it cannot be read.

    >>> read_keys(None, {"SIGLIP_JAX_API_KEYS": "secret-1, secret-2"})
    <2 API keys>
    """
    found = environment.get(VARIABLE, "").replace(",", " ").split()
    if file is not None:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & stat.S_IRWXO:
            raise ValueError(f"{file} can be read by all users (mode {mode:o}); chmod 600 it")
        lines = read_regular(file, _LARGEST).decode("utf-8", "replace").splitlines()
        before = len(found)
        for number, line in enumerate(lines, 1):
            key = _COMMENT.sub("", line).strip()
            if any(not "!" <= character <= "~" for character in key):
                raise ValueError(f"{file}, line {number}: a key is visible ASCII, without spaces")
            found += [key] if key else []
        if len(found) == before:
            raise ValueError(f"{file} has no API keys; write one a line")
    return Keys(found)


class KeyRequired:
    """Lets through whoever has a key, and everyone to the probes and the page.

    Args:
      app: that is behind.
      keys: with none of which everyone is let through.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] == "http" and self._keys and not _is_open(scope):
            refused = self._refusal(Headers(scope=scope))
        await (refused or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = [key.strip()] if scheme.lower() == "bearer" else []
        given += [headers["x-api-key"].strip()] if "x-api-key" in headers else []
        if any([key in self._keys for key in given]):
            return None
        message = "an API key is needed: send the header Authorization: Bearer KEY"
        if given:
            message = "the API key is not one of this server's"
        problem = ApiError(401, message, code="invalid_api_key").problem
        return Response(
            msgspec.json.encode({"error": problem}),
            401,
            {"WWW-Authenticate": "Bearer"},
            "application/json",
        )


def _is_open(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path == "/":
        return scope["method"] in ("GET", "HEAD")
    return any(path == known or path.startswith(f"{known}/") for known in _OPEN)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
