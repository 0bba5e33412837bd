"""Images by URL, of named hosts only: what a client names must not lead into our network.

The name is resolved once, each address is examined, and the connection goes to one of those:
a name that resolves to another address a moment later gains nothing. A redirect is a new URL and
is examined as one.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import NoReturn

import aiohttp
import yarl

from siglip_jax.serve.addresses import is_public
from siglip_jax.serve.errors import ApiError

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_HOPS = 3
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "siglip-jax"}
_INSTEAD = "send the image itself, as a data URI or in base64"


class Fetcher:
    """Fetches what URLs of allowed hosts name.

    Args:
      domains: host names, such as "images.example.com"; "*.example.com" is all names under
        example.com, without itself; "example.com:8080" is that port in the place of 80 and 443.
      most_bytes: of one answer.
      timeout: seconds for one URL, from its first redirect to its last byte.
      tls: which certificates are trusted; default: those that this machine trusts.

    Raises:
      ValueError: if there is no domain or one is not a host name; says which.

    >>> Fetcher(["https://example.com/"], most_bytes=1 << 20, timeout=5)
    Traceback (most recent call last):
    ValueError: 'https://example.com/' is no host name; ...
    """

    def __init__(
        self,
        domains: Iterable[str],
        *,
        most_bytes: int,
        timeout: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = [_parsed(domain) for domain in domains]
        if not self._allowed:
            raise ValueError("name at least one host to fetch from")
        self._most, self._timeout = most_bytes, timeout
        self._tls = tls or ssl.create_default_context()

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes that `url` names.

        Args:
          url: of http or https.
          param: the field of the request that it came from.

        Raises:
          ApiError: 400, if it is not allowed, cannot be fetched in time, or is too large.
        """
        try:
            async with asyncio.timeout(self._timeout), self._session() as session:
                return await self._followed(session, url, param)
        except TimeoutError:
            _refuse(f"the URL was not fetched within {self._timeout:g} s", param)
        except (aiohttp.ClientSSLError, ssl.SSLError):
            _refuse("the certificate or TLS of the URL's host is not valid", param)
        except (aiohttp.ClientError, OSError, ValueError):
            # What the library says has the address in it.
            _refuse("the URL's host could not be reached, or what it sent is not HTTP", param)

    def _session(self) -> aiohttp.ClientSession:
        """One for each URL: nothing, no cookie and no connection, is carried to another."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
            headers=_HEADERS,
        )

    async def _followed(self, session: aiohttp.ClientSession, text: str, param: str) -> bytes:
        url = _url(text, param)
        for _ in range(_HOPS + 1):
            host, port = self._allow(url, param)
            address = await _resolved(host, port, param)
            async with session.get(
                url.with_host(address).with_port(port),
                allow_redirects=False,
                # To exactly that address, by the name that the certificate is of.
                server_hostname=host if url.scheme == "https" else None,
                headers={"Host": host if port == _PORTS[url.scheme] else f"{host}:{port}"},
            ) as answer:
                if answer.status not in _REDIRECTS:
                    return await self._body(answer, param)
                where = answer.headers.get("Location")
                if not where:
                    _refuse("the URL's host redirects to nowhere", param)
                url = url.join(_url(where, param))
        _refuse(f"the URL redirects more than {_HOPS} times", param)

    def _allow(self, url: yarl.URL, param: str) -> tuple[str, int]:
        """Host and port of a URL that may be fetched from."""
        if url.scheme not in _PORTS:
            _refuse(f"an image's URL begins with http:// or https://, got {url.scheme!r}", param)
        if url.user is not None or url.password is not None:
            _refuse("a URL must not have a user name or password", param)
        host = (url.raw_host or "").lower().removesuffix(".")
        port = url.port or _PORTS[url.scheme]
        named = [ports for name, ports in self._allowed if _matches(host, name)]
        if not named:
            _refuse(f"this server does not fetch from {host[:100]!r}; {_INSTEAD}", param)
        if not any(port in ports for ports in named):
            _refuse(f"this server does not fetch from port {port} of {host[:100]!r}", param)
        return host, port

    async def _body(self, answer: aiohttp.ClientResponse, param: str) -> bytes:
        if answer.status != 200:
            _refuse(f"the URL's host answered with status {answer.status}", param)
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            _refuse("the URL's host compresses what it sends although it was asked not to", param)
        body = bytearray()
        too_large = (answer.content_length or 0) > self._most
        while not too_large and (chunk := await answer.content.readany()):
            body += chunk
            too_large = len(body) > self._most
        if too_large:
            _refuse(f"the URL names more than the {self._most:,} bytes of an image", param)
        return bytes(body)


async def _resolved(host: str, port: int, param: str) -> str:
    """The address to connect to. The one time that the name is looked up."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        _refuse(f"no address is known of {host[:100]!r}", param)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        _refuse(f"{host[:100]!r} is not on the public internet; {_INSTEAD}", param)
    return addresses[0]


def _url(text: str, param: str) -> yarl.URL:
    """As it was written: what is escaped in it stays so."""
    if any(not "!" <= character <= "~" for character in text):
        _refuse("a URL has ASCII characters only and no spaces; escape others with %", param)
    try:
        url = yarl.URL(text, encoded=True)
        _ = url.port, url.raw_host
    except ValueError:
        _refuse("the URL cannot be read; it is written like https://host/image.jpg", param)
    return url


def _parsed(domain: str) -> tuple[str, tuple[int, ...]]:
    """Host name, or "*.name", and ports."""
    name, colon, port = domain.lower().partition(":")
    plain = name.removeprefix("*.")
    letters = all(part and part.replace("-", "").isalnum() for part in plain.split("."))
    if not (letters and plain.isascii() and (port.isdecimal() if colon else True)):
        raise ValueError(
            f"{domain!r} is no host name; write images.example.com, *.example.com or "
            "example.com:8080"
        )
    return name, (int(port),) if colon else tuple(_PORTS.values())


def _matches(host: str, name: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _refuse(message: str, param: str) -> NoReturn:
    raise ApiError(400, message, param=param)
