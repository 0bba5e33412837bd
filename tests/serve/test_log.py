"""The log of requests: a line each, with nothing in it that a client sent but a path."""

import json
import re

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from siglip_jax.serve.log import RequestLog, note, writer


def app(write):
    async def answer(request):
        await request.body()
        note(images=2, texts=3, model="emoji")
        return PlainTextResponse("fine", 201)

    async def fail(request):
        raise KeyError("secret")

    routes = [Route("/v1/fail", fail), Route("/{rest:path}", answer, methods=["GET", "POST"])]
    return RequestLog(Starlette(routes=routes), write)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def client(lines):
    with TestClient(app(lines.append), raise_server_exceptions=False) as opened:
        yield opened


def test_a_line(client, lines):
    headers = {"Authorization": "Bearer secret", "X-Request-ID": "abc-1.2_3"}
    answer = client.post("/v1/classify?key=secret", content=b"secret" * 10, headers=headers)
    assert answer.headers["X-Request-ID"] == "abc-1.2_3"
    (line,) = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert 0 <= line.pop("ms") < 60_000
    assert line == {
        "id": "abc-1.2_3",
        "method": "POST",
        "path": "/v1/classify",
        "status": 201,
        "bytes": 60,
        "images": 2,
        "texts": 3,
        "model": "emoji",
    }


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'a"b', "a\tb", b"\xff", "../a"])
def test_an_id_that_is_not_taken_over(client, lines, given):
    answer = client.get("/", headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert lines[0]["id"] == answer.headers["X-Request-ID"]


def test_a_request_that_failed(client, lines):
    assert client.get("/v1/fail").status_code == 500
    assert lines[0]["status"] == 500
    assert "secret" not in str(lines)


def test_a_path_without_an_end(client, lines):
    client.get("/" + "a" * 5000)
    assert len(lines[0]["path"]) == 200


def test_other_facts_are_refused():
    with pytest.raises(ValueError, match="a log line has images, texts, model, got labels"):
        note(labels=2)


def test_nothing_is_noted_where_there_is_no_log():
    note(images=2)


def test_a_file(tmp_path):
    """Whoever moves it away finds the next line in a new one."""
    file = tmp_path / "requests.log"
    file.write_text("before\n")
    with writer(file) as write:
        write({"path": "/a\nb"})
        file.rename(tmp_path / "requests.log.1")
        write({"path": "/é"})
    old = (tmp_path / "requests.log.1").read_text("utf-8").splitlines()
    assert old[0] == "before"
    assert json.loads(old[1]) == {"path": "/a\nb"}
    assert file.read_text("utf-8") == '{"path":"/é"}\n'


def test_stderr(capsys):
    with writer(None) as write:
        write({"path": "/"})
    assert capsys.readouterr().err == '{"path":"/"}\n'


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="No such file"), writer(tmp_path / "absent" / "a.log"):
        pass


def test_without_a_log_there_are_ids(lines):
    with TestClient(app(None)) as client:
        assert client.get("/").headers["X-Request-ID"]
