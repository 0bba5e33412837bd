"""Requests that mean no good, over HTTP: the right status, one clear message, and a server that
answers the next request as before."""

import base64
import concurrent.futures
import http.client
import json
import socket
import struct
import time
import zlib
from urllib.parse import urlsplit

import pytest
from emoji_pictures import PICTURES, as_base64, as_uri

GOOD = {"input": as_base64(PICTURES[0]), "labels": ["a dog", "a cat"]}


def ask(url, body, path="/v1/classify", headers=None):
    """Status and parsed body of one request on a connection of its own."""
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        client.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


@pytest.fixture(scope="module")
def before(url):
    """What a good request is answered."""
    status, answer = ask(url, GOOD)
    assert status == 200
    return answer["data"]


@pytest.fixture
def server(url, before):
    """The server, which answers after the test what it answered before."""
    yield url
    status, answer = ask(url, GOOD)
    assert (status, answer["data"]) == (200, before)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(side, depth=1):
    """A black image of `side` pixels squared, whose file is a thousandth of it."""
    packer, row = zlib.compressobj(9), bytes(1 + side * depth // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def gif_of(side):
    """A canvas of `side` pixels squared, of which one is drawn."""
    return (
        b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00\x3b"
    )  # fmt: skip


CLASSIFY, EMBED = "/v1/classify", "/v1/embeddings"
REFUSED = {
    "not JSON": (CLASSIFY, b"{labels: [a]}", 400, None, "the body is no JSON"),
    "no UTF-8": (CLASSIFY, b'{"labels": ["\xff"]}', 400, None, "the body is no UTF-8"),
    "nested": (CLASSIFY, b"[" * 1_000_000, 400, None, "nested too deeply"),
    "a huge number": (EMBED, b'{"dimensions": %s}' % (b"9" * 10_000), 400, None, "no JSON"),
    "NaN": (CLASSIFY, b'{"labels": ["a"], "input": NaN}', 400, None, "NaN, which is no JSON"),
    "Infinity": (EMBED, b'{"input": [-Infinity]}', 400, None, "-Infinity, which is no JSON"),
    "a key twice": (CLASSIFY, b'{"labels": [], "labels": ["a"]}', 400, "labels", "'labels' twice"),
    "a surrogate": (EMBED, b'{"input": "\\ud800"}', 400, "input", "input: "),
    "a list": (CLASSIFY, [], 400, None, "expected `object`, got `array`"),
    "wrong type": (CLASSIFY, GOOD | {"labels": [["a"]]}, 400, "labels[0]", "expected `str`"),
    "no labels": (CLASSIFY, GOOD | {"labels": []}, 400, "labels", "the list of labels is empty"),
    "an empty label": (CLASSIFY, GOOD | {"labels": ["a", ""]}, 400, "labels", "labels[1] is empty"),
    "10,001 labels": (
        CLASSIFY, GOOD | {"labels": list(map(str, range(10_001)))}, 400, "labels",
        "10,001 labels; at most 10,000 are taken",
    ),
    "a data URI of a text": (
        CLASSIFY, GOOD | {"input": "data:text/html;base64,aGk="}, 400, "input", "one of text/html"
    ),
    "truncated base64": (
        CLASSIFY, GOOD | {"input": as_uri(PICTURES[0])[:-3]}, 400, "input",
        "the base64 of the data URI is damaged: its end is missing",
    ),
    "a truncated file": (
        CLASSIFY, GOOD | {"input": [GOOD["input"], GOOD["input"][:400]]}, 400, "input[1]",
        "input[1]: ",
    ),
    "a URL": (
        CLASSIFY, GOOD | {"input": "http://169.254.169.254/latest/meta-data"}, 400, "input",
        "this service fetches no URLs",
    ),
    "a file": (CLASSIFY, GOOD | {"input": "file:///etc/passwd"}, 400, "input", "and it is none"),
    "a model": (CLASSIFY, GOOD | {"model": "emojy"}, 404, "model", "did you mean emoji?"),
    "ids outside": (EMBED, {"input": [10**9, 1]}, 400, "input", "1000000000 is no token id"),
    "another path": ("/v1/clasify", {}, 404, None, "did you mean /v1/classify?"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_refused(server, case):
    path, body, status, param, why = REFUSED[case]
    found, answer = ask(server, body, path)
    assert found == status
    assert why in answer["error"]["message"]
    assert answer["error"]["param"] == param
    assert "/" + __file__.split("/")[1] not in json.dumps(answer)  # no path of the server


@pytest.mark.parametrize("made", ["png", "larger png", "gif"])
def test_an_image_that_is_small_as_a_file_only(server, made):
    """A hundred megapixels in 12 kB, four hundred in 49, 4,295 in 35 bytes."""
    data = {"png": lambda: png_of(10_000), "larger png": lambda: png_of(20_000)}
    data = data.get(made, lambda: gif_of(65_535))()
    assert len(data) < 50_000
    for _ in range(3):
        status, answer = ask(server, GOOD | {"input": base64.b64encode(data).decode()})
        assert (status, answer["error"]["code"]) == (400, "invalid_image")
        assert "pixels" in answer["error"]["message"]
        assert "--max-pixels" not in answer["error"]["message"]  # that is none of the client's


def raw(url, text, seconds=60):
    """All that the server says on a connection, until it closes it."""
    host, port = urlsplit(url).netloc.split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        received = b""
        try:
            connection.sendall(text)
            while part := connection.recv(1 << 16):
                received += part
        except ConnectionError:
            pass
    return received.decode("latin-1")


def head(length, *headers):
    lines = ["POST /v1/classify HTTP/1.1", "Host: a", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_megabyte_of_headers(server):
    answer = raw(server, b"GET /health HTTP/1.1\r\nHost: a\r\nCookie: " + b"x" * (1 << 20))
    assert answer.startswith("HTTP/1.1 431 ")


def test_a_body_over_the_limit_by_what_it_says(server):
    """Before any of it is sent."""
    answer = raw(server, head(1 << 40, "Connection: close"))
    assert answer.startswith("HTTP/1.1 413 ")
    assert "at most 33,554,432 are taken" in answer


def test_a_body_over_the_limit_that_says_nothing(server):
    whole = b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20))
    start = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(server, start + 40 * whole)
    assert answer.startswith("HTTP/1.1 413 ")


def test_a_body_over_the_limit_of_a_plain_client(server):
    status, answer = ask(server, b" " * (33 << 20))
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


def test_a_length_that_is_no_number(server):
    assert raw(server, head("many")).startswith("HTTP/1.1 400 ")


def test_clients_that_leave(server):
    """In the middle of their body, before their answer, and while others are answered."""
    host, port = urlsplit(server).netloc.split(":")
    body = json.dumps(GOOD | {"labels": ["a label that is new"]}).encode()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, server, GOOD) for _ in range(8)]
        for sent in (body[: len(body) // 2], body):
            for _ in range(10):
                with socket.create_connection((host, int(port)), 60) as connection:
                    connection.sendall(head(len(body)) + sent)
        assert [other.result()[0] for other in others] == [200] * 8
    held = "siglip_requests_in_flight 0.0"
    for _ in range(300):
        client = http.client.HTTPConnection(host, int(port), timeout=60)
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
        client.close()
        if held in text:
            break
        time.sleep(0.1)
    assert held in text
    for what in ("images", "texts", "bytes", "pixels"):
        assert f"siglip_{what}_in_flight 0.0" in text


@pytest.fixture(scope="module")
def guarded(start_process, tmp_path_factory):
    """A server with a key, a log and little patience; its URL, and the log."""
    log = tmp_path_factory.mktemp("log") / "requests.log"
    with start_process(keys=["sk-secret"], log=str(log), timeout=5.0) as process:
        yield process.url, log


def test_a_body_that_comes_a_byte_at_a_time(guarded):
    """The time of a request begins with its first byte."""
    url, _ = guarded
    host, port = urlsplit(url).netloc.split(":")
    with socket.create_connection((host, int(port)), 60) as slow:
        begun = time.monotonic()
        slow.sendall(head(1000, "X-API-Key: sk-secret"))
        slow.settimeout(0.2)
        received = b""
        while not received and time.monotonic() < begun + 60:
            try:
                received = slow.recv(1 << 16)
            except TimeoutError:
                slow.sendall(b" ")
        assert received.startswith(b"HTTP/1.1 408 ")
    assert ask(url, {"input": ["a"]}, EMBED, {"X-API-Key": "sk-secret"})[0] == 200


def test_keys_and_a_log(guarded):
    """Neither is a key in the log, nor what else was sent.

    The lines are found by the requests' own ids: a line is written after its answer, so the
    line of a request before these may come after them.
    """
    url, log = guarded
    ids = ["no-key", "wrong-key", "right-key"]
    sent = [{"X-Request-ID": name} for name in ids]
    status, answer = ask(url, GOOD, headers=sent[0])
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert ask(url, GOOD, headers={**sent[1], "Authorization": "Bearer sk-wrong"})[0] == 401
    headers = {**sent[2], "Authorization": "Bearer sk-secret"}
    assert ask(url, GOOD, "/v1/classify?q=sk-secret", headers)[0] == 200
    deadline = time.monotonic() + 30
    while not all(f'"{name}"' in (text := log.read_text("utf-8")) for name in ids):
        assert time.monotonic() < deadline  # written after the answer
        time.sleep(0.05)
    assert "secret" not in text and "a dog" not in text
    lines = {line["id"]: line for line in map(json.loads, text.splitlines())}
    assert [lines[name]["status"] for name in ids] == [401, 401, 200]
    facts = {name: lines["right-key"][name] for name in ("path", "images", "texts", "model")}
    assert facts == {"path": "/v1/classify", "images": 1, "texts": 2, "model": "emoji"}
