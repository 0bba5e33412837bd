"""What can go wrong between here and a bucket: tried again, or said in one line."""

import errno
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

_Result = TypeVar("_Result")

# Seconds before the second, third and fourth try.
PAUSES = (0.5, 2.0, 5.0)
# Seconds after the first try in which others are begun; a try itself takes `remote.WHOLE` at most.
PATIENCE = 60.0
# What may pass, and what no other try changes. Of a file here: these system errors, no other.
_PASSING = {
    *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOMEM, errno.ENOBUFS),
    *(errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ESTALE, errno.ENOTCONN, errno.EPIPE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED),
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.EREMOTEIO),
}
# Of a bucket or a server: whatever a protocol's package raises, but for these,
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_LASTING += (ImportError, NotImplementedError, TypeError)
# a host that does not exist, an answer from 400 to 499 but for these, and a missing login.
_NO_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_PASSING_ANSWERS = (408, 425, 429)
_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "s3a": "s3fs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
_GOOGLE = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS"
_AMAZON = "aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOGINS = {"gs": _GOOGLE, "gcs": _GOOGLE, "s3": _AMAZON, "s3a": _AMAZON} | {
    "hf": "hf auth login, or HF_TOKEN"
}


class SettingError(ValueError):
    """An error that a setting mends, which has one name in Python and one as an option.

    `str(error)` says `text_column='title'`, `error.on_command_line()` says
    `--text-column title`.

    Args:
      problem: what is wrong.
      setting: the argument, such as "text_column".
      advice: what to do about it, with {} for the setting.
      value: the setting's, if it is known.

    >>> error = SettingError("there is no title", "text_column", "did you mean {}?", "text")
    >>> str(error)
    "there is no title; did you mean text_column='text'?"
    >>> error.on_command_line()
    'there is no title; did you mean --text-column text?'
    """

    def __init__(self, problem: str, setting: str, advice: str, value: str | None = None) -> None:
        super().__init__(problem, setting, advice, value)
        self.problem, self.setting, self.advice, self.value = problem, setting, advice, value

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value!r}"
        return f"{self.problem}; {self.advice.format(self.setting + value)}"

    def on_command_line(self) -> str:
        """The same line, in the words of the options."""
        option = f"--{self.setting.replace('_', '-')}"
        value = "" if self.value is None else f" {self.value}"
        return f"{self.problem}; {self.advice.format(option + value)}"


def protocol_of(where: str) -> str:
    """The part of a URL before `://`, empty for a path.

    >>> protocol_of("gs://bucket/x"), protocol_of("a/b.jpg")
    ('gs', '')
    """
    before, separator, _ = where.partition("://")
    return before.lower() if separator else ""


# Where a part of a URL may be a secret: the user before the host, and on the web the query.
_WEB = ("http", "https", "ftp", "ftps")
_NO_USERS = ("", "file", "hf", "memory")  # what is before an @ is something else there
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def public(where: str) -> str:
    """A path or URL as keys, records and messages have it: without user, password and query.

    >>> public("https://me:secret@host/a.jpg?Signature=x"), public("what?.jpg")
    ('https://host/a.jpg', 'what?.jpg')
    """
    protocol = protocol_of(where)
    if protocol in _NO_USERS:
        return where
    if protocol in _WEB:
        where = where.partition("?")[0]
    before, _, rest = where.partition("://")
    host, slash, path = rest.partition("/")
    return f"{before}://{host.rpartition('@')[2]}{slash}{path}"


def public_text(text: str) -> str:
    """A message of somebody else, with `public` URLs.

    >>> public_text("GET 'https://me@host/a?b=c': 404, see http://host/d?e=f.")
    "GET 'https://host/a': 404, see http://host/d."
    """

    def shown(match: re.Match[str]) -> str:
        url = match[0].rstrip(".,:;)")
        return public(url) + match[0][len(url) :]

    return _URL.sub(shown, text)


class PassingError(ValueError):
    """What could not be read may be readable later: `embed --retry` tries it again."""


def retrying(
    where: str,
    action: Callable[[], _Result],
    pauses: Sequence[float] | None = None,
    patience: float | None = None,
) -> _Result:
    """What `action` returns; what may pass is tried four times, some seconds apart.

    Args:
      pauses: seconds between the tries, in place of `PAUSES`.
      patience: seconds after which no other try is begun, in place of `PATIENCE`.

    Raises:
      PassingError: one line that begins with `where`; the tries have not helped, or a login
        has expired, which no try helps but a new one does.
      ValueError: one line that begins with `where` and says what to do.
    """
    pauses, patience = pauses or PAUSES, patience or PATIENCE
    begun = time.monotonic()
    for tries, pause in enumerate((*pauses, None), 1):
        try:
            return action()
        # The packages behind fsspec each have errors of their own.
        except Exception as raised:
            error = _reason(where, raised)
            passing = is_passing(where, error)
            if pause is None or not passing or time.monotonic() - begun > patience:
                kind = PassingError if passing or has_expired(where, error) else ValueError
                raise kind(
                    f"{public(where)}: {public_text(explained(where, error, tries))}"
                ) from error
        time.sleep(pause)
    raise AssertionError("unreachable")


def explained(where: str, error: BaseException, tries: int = 1) -> str:
    """What to tell a person of `error`, which came from opening or reading `where`."""
    protocol, name = protocol_of(where), type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, ImportError):
        package = _PACKAGES.get(protocol)
        return f"{protocol}:// needs another package; " + (
            f"pip install {package}" if package else str(error).partition("\n")[0]
        )
    login = _LOGINS.get(protocol)
    status = _status(error)
    if has_expired(where, error):
        return f"the login has expired; renew it: {login or 'log in again'}"
    if "credential" in f"{name} {error}".lower():
        return f"no credentials are found; {login or 'log in first'}"
    if protocol and (isinstance(error, PermissionError) or status in (401, 403)):
        return "access is refused" + (f"; to log in: {login}" if login else "")
    reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "") or name
    if isinstance(error, ValueError | TypeError | NotImplementedError) or not protocol:
        return f"cannot be read: {reason}"
    many = "try" if tries == 1 else "tries"
    return f"cannot be reached after {tries} {many}: {reason}"


def _reason(where: str, error: BaseException) -> BaseException:
    """What is behind an error: fsspec calls a file missing whatever ails a web server."""
    cause = error.__cause__
    web = protocol_of(where) in ("http", "https") and isinstance(error, FileNotFoundError)
    if not web or cause is None or getattr(cause, "status", None) == 404:
        return error
    return _reason(where, cause)


def _status(error: BaseException) -> int | None:
    """The number of a server's answer, where the error is of one."""
    status = getattr(error, "status", None)
    if status is None:  # as boto has it, behind an error of the system's kinds
        answer = getattr(error.__cause__, "response", None)
        about = answer.get("ResponseMetadata") if isinstance(answer, dict) else None
        status = about.get("HTTPStatusCode") if isinstance(about, dict) else None
    return status if isinstance(status, int) else None


def has_expired(where: str, error: BaseException) -> bool:
    """Whether what failed is a login that was good before.

    >>> has_expired("s3://b/a.jpg", PermissionError("The provided token has expired."))
    True
    """
    refused = isinstance(error, PermissionError) or _status(error) in (400, 401, 403)
    refused = refused or type(error).__name__ == "RefreshError"  # Google's, of no answer
    return bool(protocol_of(where)) and refused and "expired" in str(error).lower()


def is_passing(where: str, error: BaseException) -> bool:
    """Whether reading `where` again may succeed, after it failed with `error`.

    >>> is_passing("a.jpg", OSError(errno.EIO, "")), is_passing("a.jpg", FileNotFoundError())
    (True, False)
    >>> is_passing("http://host/a.jpg", TimeoutError())
    True
    """
    if not protocol_of(where):
        number = error.errno if isinstance(error, OSError) else None
        return number in _PASSING or isinstance(error, TimeoutError)
    if isinstance(error, _LASTING) or has_expired(where, error):
        return False
    unresolved = getattr(error, "os_error", error)  # as aiohttp wraps it
    if isinstance(unresolved, socket.gaierror) and unresolved.errno in _NO_HOST:
        return False
    status = _status(error)
    if status is not None and 400 <= status < 500 and status not in _PASSING_ANSWERS:
        return False
    return "credential" not in f"{type(error).__name__} {error}".lower()
