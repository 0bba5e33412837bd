"""The server under clients that mean no good, and when it is told to stop."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from paths import REPO

from siglip_jax.serve.server import address, bind, exposed


class Running:
    """`plain_server.py` in a process."""

    def __init__(self, **options):
        script = REPO / "tests/support/plain_server.py"
        self.process = subprocess.Popen(
            [sys.executable, script, json.dumps({"grace": 20, **options})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPO,
        )
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2]) if self.url else None

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def ask(self, path="/size", method="GET", body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 30)) as client:
            client.request(method, path, body)
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    def ended(self):
        """Exit code and all that it still said."""
        try:
            said, errors = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, said, errors


@pytest.fixture(scope="module")
def running():
    server = Running(HEADER_SECONDS=1.0, REST_SECONDS=1.0, connections=8)
    yield server
    server.process.terminate()
    code, _, errors = server.ended()
    assert (code, errors) == (0, "")


def sent(connection, text):
    """Everything until the server closes; None where it closed without a word."""
    with contextlib.suppress(ConnectionError):
        connection.sendall(text)
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            received += part
    return received.decode()


def answer_of(connection):
    """The status and body of one answer, on a connection that stays open."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read().decode()


def test_a_megabyte_of_headers(running):
    with running.connect() as connection:
        answer = sent(connection, b"GET /size HTTP/1.1\r\nX: " + b"x" * (1 << 20))
    assert answer.startswith("HTTP/1.1 431 ")
    problem = json.loads(answer.partition("\r\n\r\n")[2])["error"]
    assert problem["message"] == "the headers of a request have at most 32,768 bytes"
    assert running.ask() == (200, "0")


def test_many_headers(running):
    with running.connect() as connection:
        answer = sent(connection, b"GET /size HTTP/1.1\r\n" + b"".join(
            b"X-%d: x\r\n" % i for i in range(100_000)
        ))  # fmt: skip
    assert answer.startswith("HTTP/1.1 431 ")
    assert running.ask() == (200, "0")


def test_headers_of_a_usual_size(running):
    text = (
        b"GET /size HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"x" * 16_000 + b"\r\n\r\n"
    )
    with running.connect() as connection:
        assert sent(connection, text).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without Host
        b"GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http(running, text):
    with running.connect() as connection:
        answer = sent(connection, text)
    assert answer.startswith("HTTP/1.1 400 ")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["message"]
    assert running.ask() == (200, "0")


@pytest.mark.parametrize("first", [b"", b"GET /size HTTP/1.1\r\nHost: a\r\n"])
def test_headers_that_never_end(running, first):
    """However often another byte comes."""
    with running.connect() as connection:
        begun = time.monotonic()
        connection.sendall(first)
        connection.settimeout(0.1)
        while time.monotonic() < begun + 30:
            try:
                if not connection.recv(1):
                    break
            except TimeoutError:
                connection.sendall(b"X" if first else b"")
            except ConnectionError:
                break
        else:
            pytest.fail("the connection is still open")
        assert time.monotonic() - begun > 0.9


def test_the_second_request_of_a_connection_never_ends(running):
    with running.connect() as connection:
        connection.sendall(b"GET /size HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer_of(connection)[0] == 200
        assert sent(connection, b"GET /si") == ""


def test_a_slow_body_is_no_slow_header(running):
    """How long a body may take is up to the application."""
    with running.connect() as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
        time.sleep(1.5)
        connection.sendall(b"bc")
        assert answer_of(connection)[0] == 200


def test_a_large_body(running):
    assert running.ask("/size", "POST", bytes(20 << 20)) == (200, str(20 << 20))


def test_a_body_that_was_refused_before_it_came(running):
    """Its sender reads why, although it sends all of it first."""
    assert running.ask("/refuse", "POST", bytes(20 << 20)) == (413, "too large")


def test_the_rest_of_a_refused_body_has_its_time(running):
    with running.connect() as connection:
        connection.sendall(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        assert answer_of(connection)[0] == 413
        assert "HTTP" not in sent(connection, b"rest")


def test_requests_one_behind_the_other(running):
    with running.connect() as connection:
        answers = sent(
            connection,
            2 * b"GET /size HTTP/1.1\r\nHost: a\r\n\r\n"
            + b"GET /slow/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
    assert answers.count("HTTP/1.1 200 ") == 3
    assert answers.endswith("slow")


def test_too_many_connections(running):
    with contextlib.ExitStack() as held:
        for _ in range(8):
            connection = held.enter_context(running.connect())
            connection.sendall(b"GET /slow/0.2 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer_of(connection)[0] == 200
        with running.connect() as another:
            answer = sent(another, b"")
        assert answer.startswith("HTTP/1.1 503 ")
        assert "\r\nretry-after: 1\r\n" in answer
    for _ in range(100):
        if running.ask()[0] == 200:
            return
        time.sleep(0.1)
    pytest.fail("no connection is taken any more")


def test_told_to_stop_it_answers_what_it_accepted():
    running = Running(grace=30)
    with running.connect() as busy, running.connect() as idle:
        idle.sendall(b"GET /size HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer_of(idle)[0] == 200
        busy.sendall(b"GET /slow/1.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        running.process.terminate()
        assert running.process.stdout.readline() == "stopping\n"
        # One that was under way on an open connection.
        idle.sendall(b"GET /slow/0.1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sent(idle, b"").endswith("slow")
        answer = sent(busy, b"")
        assert answer.startswith("HTTP/1.1 200 ") and answer.endswith("slow")
        assert "\r\nconnection: close\r\n" in answer
    with pytest.raises(ConnectionError):
        running.connect()
    assert running.ended() == (0, "done\n", "")


def test_told_to_stop_it_waits_no_longer_than_it_was_allowed():
    running = Running(grace=0.5)
    with running.connect() as busy:
        busy.sendall(b"GET /slow/500 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        running.process.send_signal(signal.SIGINT)
        code, said, errors = running.ended()
    assert (code, said) == (0, "stopping\ndone\n")
    assert "timeout graceful shutdown exceeded" in errors


def test_told_twice_it_ends_at_once():
    running = Running(grace=300)
    with running.connect() as busy:
        busy.sendall(b"GET /slow/500 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        running.process.terminate()
        assert running.process.stdout.readline() == "stopping\n"
        running.process.terminate()
        assert running.ended()[0] == -signal.SIGTERM


def test_an_application_that_cannot_start():
    running = Running(fails=True)
    code, _, errors = running.ended()
    assert code == 1
    assert errors.strip().endswith(
        "RuntimeError: the service cannot start; the lines above say why"
    )


def test_a_port_that_is_taken():
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert address(first) == f"http://127.0.0.1:{port}"
        message = (
            f"^cannot listen on port {port} of 127.0.0.1: Address already in use; give another"
        )
        with pytest.raises(OSError, match=message):
            bind("127.0.0.1", port)


def test_a_host_that_is_none():
    with pytest.raises(OSError, match=r"^cannot listen on port 80 of no\.invalid: [^;]*$"):
        bind("no.invalid", 80)
    with pytest.raises(OSError, match=r"^cannot listen on port 80 of 198\.51\.100\.1: Cannot"):
        bind("198.51.100.1", 80)


def test_ipv6():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with bind("::1", 0) as listening:
            assert address(listening).startswith("http://[::1]:")
            assert exposed(listening, 0) is None
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_who_is_warned():
    with bind("0.0.0.0", 0) as everywhere, bind("127.0.0.1", 0) as here:
        assert "whoever can connect to 0.0.0.0 may use this service" in exposed(everywhere, 0)
        assert exposed(everywhere, 2) is None
        assert exposed(here, 0) is None
