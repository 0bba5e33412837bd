"""One file by https: resumed where it was cut off, checked, and whole or not at all."""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

# Bytes so far and bytes in all (0 if unknown).
Progress = Callable[[int, int], None]

_BLOCK = 1 << 20


class _Part(NamedTuple):
    """What there is of a file: the bytes, and which version of the file they are of."""

    bytes: Path
    version: Path

    def begun(self) -> tuple[int, str]:
        """How many bytes there are, and of which version; 0 and "" where there are none."""
        with contextlib.suppress(OSError):
            if version := self.version.read_text("utf-8"):
                return self.bytes.stat().st_size, version
        return 0, ""

    def remove(self) -> None:
        self.bytes.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)


def download(url: str, target: Path, progress: Progress | None = None) -> str | None:
    """Brings `url` to `target`, which appears whole or not at all.

    What was cut off goes on where it ended, now or when this is called again, if the server
    can do that: the bytes lie beside `target` until then.

    Returns:
      The digest that the server states and the file has, "md5:..."; None if it states none.

    Raises:
      OSError: if it cannot be had, does not fit on the disk, or has another digest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(*(target.with_name(f".{target.name}.part{end}") for end in ("", ".version")))
    with _alone(target):
        if target.is_file():
            return None  # another process was quicker
        while True:
            before = part.begun()[0]
            try:
                digest = _receive(url, part, progress)
                break
            except BaseException as error:
                kept, _ = part.begun()
                if not kept:
                    part.remove()
                if not isinstance(error, OSError) or kept <= before:
                    raise
        part.bytes.replace(target)
        part.remove()
    return digest


@contextlib.contextmanager
def _alone(target: Path) -> Generator[None]:
    """One process at a time; the others wait for it."""
    lock = target.with_name(f".{target.name}.lock")
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Unless the process that was waited for has removed this very file.
            if lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return


def _receive(url: str, part: _Part, progress: Progress | None) -> str | None:
    # Here, because they double the start-up of --help.
    import http.client
    import urllib.error
    import urllib.request

    done, version = part.begun()
    headers = {"Range": f"bytes={done}-", "If-Range": version} if done else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as r:
            return _copy(r, part, done if getattr(r, "status", 200) == 206 else 0, progress)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.remove()  # There are more bytes here than the file has.
        return _receive(url, part, progress)
    except http.client.HTTPException as error:
        raise OSError(f"the download failed: {type(error).__name__} {error}") from error


def _copy(response: Any, part: _Part, done: int, progress: Progress | None) -> str | None:
    length = int(response.headers.get("Content-Length") or 0)
    total = length + done if length else 0
    if length > (free := shutil.disk_usage(part.bytes.parent).free):
        raise OSError(f"{length:,} bytes do not fit on the disk, {free:,} are free")
    stated = _md5(response.headers)
    digest = hashlib.md5(usedforsecurity=False)
    if done:
        with part.bytes.open("rb") as begun:
            while block := begun.read(_BLOCK):
                digest.update(block)
    version = response.headers.get("ETag") or ""
    # A weak one says that two versions mean the same, not that they have the same bytes.
    part.version.write_text("" if version.startswith("W/") else version, "utf-8")
    with part.bytes.open("ab" if done else "wb") as out:
        while block := response.read(_BLOCK):
            out.write(block)
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
        out.flush()
        os.fsync(out.fileno())
    if total and done != total:
        raise OSError(f"the download ended after {done:,} of {total:,} bytes")
    if stated and digest.hexdigest() != stated:
        part.remove()
        raise OSError(f"its md5 is {digest.hexdigest()}, not {stated} as the server states")
    return f"md5:{stated}" if stated else None


def _md5(headers: Any) -> str | None:
    """What Google's storage states of a file, as hexadecimal digits; None if it does not."""
    several = getattr(headers, "get_all", lambda name: [headers.get(name) or ""])
    found = re.search(r"md5=([\w+/]{22}==)", ",".join(several("x-goog-hash") or ()))
    return base64.b64decode(found[1]).hex() if found else None


def check_sha256(path: Path, wanted: str, stated: str) -> None:
    """Refuses a file that has another digest, and removes it, so that it is fetched again.

    Args:
      stated: who says so, for the message.

    Raises:
      OSError: if it has.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        path.unlink()
        raise OSError(f"its sha256 is {found}, not {wanted} as {stated} states")


def check_cached(path: Path) -> str | None:
    """The digest of a file in the cache of huggingface_hub, which keeps large ones under it.

    Returns:
      "sha256:..."; None of a small file, or outside such a cache, where none is stated.

    Raises:
      OSError: if the file has another digest. It is removed, so that it is fetched again.
    """
    blob = path.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return None
    check_sha256(blob, blob.name, "the hub")
    return f"sha256:{blob.name}"
