"""API keys: who is let in, and that no key is ever shown."""

import hmac

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import siglip_jax
from siglip_jax.serve import create_app
from siglip_jax.serve.keys import KeyRequired, Keys, read_keys

KEY = "sk-horse-battery"


def app(keys):
    async def answer(request):
        return PlainTextResponse("in")

    routes = [Route("/{rest:path}", answer, methods=["GET", "POST"])]
    return KeyRequired(Starlette(routes=routes), keys)


@pytest.fixture(scope="module")
def client():
    with TestClient(app(Keys(["another", KEY, "a-third"]))) as opened:
        yield opened


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY} "},
        {"X-API-Key": KEY},
        {"Authorization": "Bearer EMPTY", "X-API-Key": KEY},
    ],
)
def test_a_key(client, headers):
    assert client.post("/v1/classify", headers=headers).text == "in"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "an API key is needed: send the header Authorization: Bearer KEY"),
        ({"Authorization": f"Basic {KEY}"}, "an API key is needed"),
        ({"Authorization": KEY}, "an API key is needed"),
        ({"Authorization": "Bearer"}, "not one of this server's"),
        ({"Authorization": "Bearer "}, "not one of this server's"),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, "not one of this server's"),
        ({"Authorization": f"Bearer {KEY}x"}, "not one of this server's"),
        ({"Authorization": f"Bearer {KEY},another"}, "not one of this server's"),
        ({"Authorization": b"Bearer \xff\xfe"}, "not one of this server's"),
        ({"X-API-Key": ""}, "not one of this server's"),
    ],
)
def test_without_a_key(client, headers, why):
    answer = client.post("/v1/classify", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    problem = answer.json()["error"]
    assert why in problem["message"]
    assert (problem["type"], problem["code"]) == ("authentication_error", "invalid_api_key")
    assert KEY[:-1] not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/health/ready", "/ping", "/v2/health/live", "/static/page.js"],
)
def test_what_is_open(client, path):
    assert client.get(path).text == "in"


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/v1/models",
        "/v2",
        "/v2/models/a/ready",
        "/healthy",
        "/pinging",
        "//health",
        "/Health",
    ],
)
def test_what_is_not_open(client, path):
    assert client.get(f"http://testserver{path}").status_code == 401


def test_the_hugging_face_payload_is_not_the_page(client):
    assert client.post("/", json={}).status_code == 401


def test_under_another_root():
    with TestClient(app(Keys([KEY])), root_path="/siglip") as client:
        assert client.get("/siglip/health").status_code == 200
        assert client.get("/siglip/metrics").status_code == 401


def test_no_keys_let_everyone_in():
    with TestClient(app(Keys())) as client:
        assert client.post("/v1/classify").text == "in"


def test_every_path_of_the_service():
    """One that is new is closed until it is said to be open."""
    service = create_app({"emoji": siglip_jax.load("siglip_emoji")}, keys=[KEY])
    client = TestClient(service)  # which is not started, as nothing is computed
    let_in = set()
    for route in service.routes:
        for method in sorted(route.methods - {"HEAD"}):
            if client.request(method, route.path).status_code != 401:
                let_in.add(f"{method} {route.path}")
    assert let_in == {
        "GET /", "GET /static/examples.json", "GET /static/examples/{name}", "GET /static/{name}",
        "GET /health", "GET /health/ready", "GET /ping", "GET /v2/health/live",
        "GET /v2/health/ready",
    }  # fmt: skip


def test_every_key_is_compared(monkeypatch):
    """However early the right one comes."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    assert KEY in Keys([KEY, "b", "c"])
    assert len(compared) == 3


def test_a_key_is_nowhere_to_be_seen():
    keys = Keys([KEY])
    assert KEY not in repr(keys) + str(keys) + repr(vars(keys)) + repr(vars(app(keys)))


def file_of(tmp_path, text, mode=0o600):
    file = tmp_path / "keys.txt"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_file(tmp_path):
    file = file_of(tmp_path, f"# of the team\n\n  {KEY}  # of the phone\nwith#within\r\n", 0o640)
    keys = read_keys(file, {"SIGLIP_JAX_API_KEYS": "one,two\nthree"})
    assert len(keys) == 5
    assert all(key in keys for key in (KEY, "with#within", "one", "two", "three"))
    assert "" not in keys and "# of the team" not in keys


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (KEY, 0o644, r"keys\.txt can be read by all users \(mode 644\); chmod 600 it"),
        (KEY, 0o602, "can be read by all users"),
        ("", 0o600, r"keys\.txt has no API keys; write one a line"),
        ("# nothing", 0o600, "has no API keys"),
        (f"ok\n{KEY} {KEY}", 0o600, r"keys\.txt, line 2: a key is visible ASCII, without spaces"),
        ("clé", 0o600, r"line 1: a key is visible ASCII"),
    ],
)
def test_a_file_that_is_refused(tmp_path, text, mode, why):
    with pytest.raises(ValueError, match=why) as caught:
        read_keys(file_of(tmp_path, text, mode), {})
    assert KEY not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_keys(tmp_path / "absent", {})
    assert len(read_keys(None, {})) == 0


def test_a_key_of_other_characters():
    with pytest.raises(ValueError, match="API key 2 must be visible ASCII"):
        Keys(["fine", "not fine"])
