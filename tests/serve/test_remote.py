"""Images by URL: of allowed hosts, at public addresses, within bounds; everything else is 400.

Hosts are stand-ins on a loopback address that these tests declare public; all others of the
machine stay what they are.
"""

import asyncio
import contextlib
import errno
import shutil
import socket
import ssl
import subprocess

import pytest

from siglip_jax.serve import remote
from siglip_jax.serve.addresses import is_public
from siglip_jax.serve.errors import ApiError

PUBLIC, INSIDE = "127.0.0.9", "127.0.0.1"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage"


class Network:
    """Names of a DNS and one server on each address, at one port.

    Attributes:
      names: name to the addresses of each lookup; the last of them stays.
      looked_up: every name, as often as it was.
      requests: what came to the server at `PUBLIC`, headers and all.
      reached_inside: whether anything connected to `INSIDE`.
    """

    def __init__(self):
        self.names = {"images.test": [[PUBLIC]], "inside.test": [[INSIDE]]}
        self.looked_up, self.requests, self.reached_inside = [], [], False
        self.answers, self.port, self.tls = [ANSWER], 0, None
        self.serving = set()

    def resolve(self, host):
        self.looked_up.append(host)
        if host not in self.names:
            return None
        lookups = self.names[host]
        return lookups.pop(0) if len(lookups) > 1 else lookups[0]

    async def public(self, reader, writer):
        self.serving.add(asyncio.current_task())
        with (
            contextlib.closing(writer),
            contextlib.suppress(ConnectionError, asyncio.IncompleteReadError),
        ):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer.replace(b"PORT", b"%d" % self.port))
            await writer.drain()

    async def inside(self, reader, writer):
        self.reached_inside = True
        writer.close()

    async def _both(self):
        # A port that is free at one address may be taken at the other, by anybody.
        while True:
            outer = await asyncio.start_server(self.public, PUBLIC, 0, ssl=self.tls)
            self.port = outer.sockets[0].getsockname()[1]
            try:
                return outer, await asyncio.start_server(self.inside, INSIDE, self.port)
            except OSError as error:
                outer.close()
                await outer.wait_closed()
                if error.errno != errno.EADDRINUSE:
                    raise

    @contextlib.asynccontextmanager
    async def served(self):
        outer, inner = await self._both()
        async with outer, inner:
            try:
                yield
            finally:
                await asyncio.wait(self.serving, timeout=0.2) if self.serving else None
                for task in self.serving:
                    task.cancel()
                await asyncio.gather(*self.serving, return_exceptions=True)
                self.serving.clear()
                await asyncio.sleep(0)

    def fetch(self, url, domains=("images.test", "inside.test"), **options):
        """What a fetcher gets from `url`, in which PORT is the server's."""

        async def fetched():
            async with self.served():
                ports = [f"{domain}:{self.port}" for domain in domains]
                options.setdefault("most_bytes", 1000)
                options.setdefault("timeout", 20)
                fetcher = remote.Fetcher(ports, **options)
                return await fetcher.fetch(url.replace("PORT", str(self.port)), "input[3]")

        return asyncio.run(fetched())

    def refused(self, url, **options):
        """Why it is, in a message that names no address."""
        with pytest.raises(ApiError) as caught:
            self.fetch(url, **options)
        assert (caught.value.status, caught.value.param) == (400, "input[3]")
        public = url + str(self.answers)
        for address in (PUBLIC, INSIDE, "169.254"):
            assert address in public or address not in caught.value.message
        assert not self.reached_inside
        return caught.value.message


@pytest.fixture
def network(monkeypatch):
    known = Network()
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop, host, port, **options):
        addresses = known.resolve(host)
        if addresses is None:
            if host[:1].isdigit() or ":" in host:  # libc reads numbers in many forms
                return await real(loop, host, port, **options)
            raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(remote, "is_public", lambda one: one == PUBLIC or is_public(one))
    return known


def test_an_image(network):
    assert network.fetch("http://images.test:PORT/a%20b.jpg?x=1&y=%2F") == b"image"
    request = network.requests[0]
    assert request.startswith("GET /a%20b.jpg?x=1&y=%2F HTTP/1.1\r\n")
    assert f"\r\nHost: images.test:{network.port}\r\n" in request
    assert "\r\nAccept-Encoding: identity\r\n" in request


@pytest.mark.parametrize("url", ["http://IMAGES.Test:PORT/", "http://images.test.:PORT/#part"])
def test_another_spelling_of_the_host(network, url):
    assert network.fetch(url) == b"image"


def test_all_names_under_a_domain(network):
    network.names["a.b.images.test"] = [[PUBLIC]]
    assert network.fetch("http://a.b.images.test:PORT/", domains=["*.images.test"]) == b"image"
    for host in ("images.test", "evilimages.test", "images.test.evil.test"):
        why = network.refused(f"http://{host}:PORT/", domains=["*.images.test"])
        assert why.startswith(f"this server does not fetch from '{host}'; send the image itself")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "begins with http:// or https://, got 'file'"),
        ("ftp://images.test:PORT/", "got 'ftp'"),
        ("//images.test:PORT/", "got ''"),
        ("http://images.test:22/", "does not fetch from port 22 of 'images.test'"),
        ("http://images.test/", "does not fetch from port 80"),
        ("http://me:secret@images.test:PORT/", "must not have a user name or password"),
        ("http://images.test@inside.test:PORT/", "must not have a user name"),
        ("http://images.test:PORT\\@inside.test/", "cannot be read|must not have a user name"),
        ("http://images.test:PORT/a b", "escape others with %"),
        ("http://images.test:PORT/\r\nHost: x", "escape others with %"),
        ("http://images.test:x/", "cannot be read"),
        ("http://images.test:99999/", "cannot be read"),
        ("http:///a", "cannot be read|does not fetch from ''"),
        ("http://[::1/", "cannot be read"),
        ("http://other.test/", "does not fetch from 'other.test'"),
        ("http://169.254.169.254/latest/meta-data/", "does not fetch from '169.254.169.254'"),
        ("http://[::ffff:127.0.0.1]/", "does not fetch from"),
        ("http://[fe80::1%25lo]/", "does not fetch from|cannot be read"),
    ],
)
def test_a_url_that_is_not_looked_up(network, url, why):
    message = network.refused(url)
    assert any(part in message for part in why.split("|")), message
    assert network.looked_up == []


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2130706433", "017700000001", "0x7f000001", "127.1", "0"]
)
def test_a_number_that_somebody_allowed(network, host):
    """libc takes them all for addresses."""
    assert "not on the public internet" in network.refused(f"http://{host}:PORT/", domains=[host])


@pytest.mark.parametrize(
    "addresses", [[INSIDE], ["169.254.169.254"], ["::1"], ["::ffff:1.1.1.1"], [PUBLIC, INSIDE]]
)
def test_a_name_of_an_address_inside(network, addresses):
    network.names["inside.test"] = [addresses]
    assert "not on the public internet" in network.refused("http://inside.test:PORT/")


def test_a_name_is_looked_up_once(network):
    """Whoever answers otherwise the second time is not asked."""
    network.names["images.test"] = [[PUBLIC], [INSIDE]]
    assert network.fetch("http://images.test:PORT/") == b"image"
    assert network.looked_up == ["images.test"]


def test_an_unknown_name(network):
    del network.names["images.test"]
    assert "no address is known of 'images.test'" in network.refused("http://images.test:PORT/")


def redirect(where, status=302):
    return b"HTTP/1.1 %d Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (
        status,
        where.encode(),
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect(network, status):
    network.answers = [
        b"HTTP/1.1 %d Found\r\nSet-Cookie: a=b\r\nLocation: ../b.jpg\r\n\r\n" % status,
        ANSWER,
    ]
    assert network.fetch("http://images.test:PORT/c/a.jpg") == b"image"
    assert network.requests[1].startswith("GET /b.jpg HTTP/1.1")
    assert "cookie" not in network.requests[1].lower()


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("http://inside.test:PORT/", "not on the public internet"),
        ("http://169.254.169.254/", "does not fetch from"),
        ("http://other.test/", "does not fetch from"),
        ("//inside.test:PORT/", "not on the public internet"),
        ("file:///etc/passwd", "begins with http"),
        ("http://a:b@images.test:PORT/", "user name"),
        ("http://images.test:1/", "port 1"),
        ("/again", "redirects more than 3 times"),
        ("http://[", "cannot be read"),
        ("", "redirects to nowhere"),
    ],
)
def test_a_redirect_to_what_is_not_allowed(network, where, why):
    network.answers = [redirect(where)]
    assert why in network.refused("http://images.test:PORT/")


def test_a_name_that_moves_between_redirects(network):
    network.names["images.test"] = [[PUBLIC], [INSIDE]]
    network.answers = [redirect("/b.jpg")]
    assert "not on the public internet" in network.refused("http://images.test:PORT/")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n", "answered with status 404"),
        (b"HTTP/1.1 204 None\r\n\r\n", "answered with status 204"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "more than the 1,000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2000), "more than the 1,000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + bytes(2000),
            "more than the 1,000 bytes",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n.",
            "compresses what it sends",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "could not be reached"),
        (b"220 smtp.test ready\r\n", "could not be reached"),
        (b"", "could not be reached"),
    ],
)
def test_an_answer_that_is_no_image(network, answer, why):
    network.answers = [answer]
    assert why in network.refused("http://images.test:PORT/")


def test_a_body_without_an_end(network):
    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    network.answers = [endless]
    assert "more than the 1,000,000 bytes" in network.refused(
        "http://images.test:PORT/", most_bytes=1_000_000
    )


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nA", b""])
def test_a_server_that_takes_its_time(network, first):
    async def dribbling(writer):
        writer.write(first)
        while True:
            if first:
                writer.write(b"x")
                await writer.drain()
            await asyncio.sleep(0.05)

    network.answers = [dribbling]
    why = network.refused("http://images.test:PORT/", timeout=0.5)
    assert why == "the URL was not fetched within 0.5 s"


def test_nobody_listens(network):
    network.names["images.test"] = [[PUBLIC]]

    async def fetched():
        with socket.socket() as taken:  # bound, and not listening
            taken.bind((PUBLIC, 0))
            port = taken.getsockname()[1]
            fetcher = remote.Fetcher([f"images.test:{port}"], most_bytes=9, timeout=20)
            await fetcher.fetch(f"http://images.test:{port}/", "image")

    with pytest.raises(ApiError, match=r"^the URL's host could not be reached"):
        asyncio.run(fetched())


def test_no_proxy_of_the_environment(network, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{INSIDE}:9")
    assert network.fetch("http://images.test:PORT/") == b"image"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of images.test, and trusted by whoever is given it."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem "
    command += "-subj /CN=images.test -addext subjectAltName=DNS:images.test"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def secured(network, certificate):
    network.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    network.tls.load_cert_chain(*certificate)
    return ssl.create_default_context(cafile=certificate[0])


def test_https_by_the_name_of_the_host(network, certificate):
    trusting = secured(network, certificate)
    names = []
    network.tls.sni_callback = lambda tls, name, context: names.append(name)
    assert network.fetch("https://images.test:PORT/", tls=trusting) == b"image"
    assert names == ["images.test"]


@pytest.mark.parametrize("host", ["images.test", "other.test"])
def test_a_certificate_that_is_not_valid(network, certificate, host):
    trusting = secured(network, certificate)
    network.names["other.test"] = [[PUBLIC]]
    # The one is not trusted by this machine, the other trusted and of another name.
    tls = None if host == "images.test" else trusting
    why = network.refused(f"https://{host}:PORT/", domains=[host], tls=tls)
    assert why == "the certificate or TLS of the URL's host is not valid"
    assert network.requests == []


@pytest.mark.parametrize("domain", ["", "*", "*.", "a b", "http://a", "a:b", "a:", "é.test", "a/b"])
def test_a_domain_that_is_none(domain):
    with pytest.raises(ValueError, match=r"is no host name; write images\.example\.com"):
        remote.Fetcher([domain], most_bytes=1, timeout=1)


def test_no_domain():
    with pytest.raises(ValueError, match="name at least one host"):
        remote.Fetcher([], most_bytes=1, timeout=1)


def test_the_usual_ports_are_those_of_a_domain_without_one(network):
    fetcher = remote.Fetcher(["images.test"], most_bytes=1, timeout=20)
    with pytest.raises(ApiError, match="does not fetch from port 8080"):
        asyncio.run(fetcher.fetch("http://images.test:8080/", "image"))
