import re

import siglip_jax
from siglip_jax.serve.openapi import document


def test_models(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "emoji"
    assert model["capabilities"] == ["classify", "embed_images", "embed_texts"]
    assert (model["dimensions"], model["resolution"], model["context_length"]) == (192, 32, 20)
    assert client.get("/v1/models/emoji").json() == model
    assert client.get("/v1/models/emojis").status_code == 404


def test_health(client):
    for path in ("/health", "/health/ready", "/ping"):
        assert client.get(path).json() == {"status": "ok"}


def test_not_ready_before_all_is_compiled_and_after_the_end():
    from starlette.testclient import TestClient

    from siglip_jax.serve import create_app

    app = create_app({"emoji": siglip_jax.load("siglip_emoji")}, batch_size=1, text_batch_size=1)
    client = TestClient(app)  # without its lifespan: nothing starts
    assert client.get("/health").json() == {"status": "starting"}
    assert client.get("/health/ready").status_code == 503
    answer = client.post("/v1/embeddings", json={"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


def test_metrics(client):
    def recompiles(text):
        return re.search(r"^siglip_recompiles_total (.*)$", text, re.MULTILINE)[1]

    # Other tests of this process compile programs of their own.
    before = recompiles(client.get("/metrics").text)
    client.post("/v1/embeddings", json={"input": "a"})
    text = client.get("/metrics").text
    for name in (
        "request_total", "request_success_total", "request_duration_seconds_bucket",
        "request_queue_duration_seconds_bucket", "request_decode_duration_seconds_bucket",
        "request_inference_duration_seconds_bucket", "batch_size_bucket", "queue_size",
        "padding_rows_total", "pixels_in_flight", "recompiles_total",
    ):  # fmt: skip
        assert re.search(rf"^siglip_{name}\b", text, re.MULTILINE), name
    assert recompiles(text) == before


def test_the_document_has_every_route(client):
    found = client.get("/openapi.json").json()
    stated = {(method.upper(), path) for path, item in found["paths"].items() for method in item}
    routes = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in client.app.routes
        if getattr(route, "include_in_schema", True)
        for method in route.methods - {"HEAD"}
    }
    assert stated == routes - {("GET", "/openapi.json")}
    assert document(()).keys() == found.keys()


def test_paths_that_there_are_not(client):
    answer = client.post("/v1/classifi", json={})
    assert answer.status_code == 404
    assert "did you mean /v1/classify?" in answer.json()["error"]["message"]
    answer = client.get("/v1/classify")
    assert answer.status_code == 405
    assert answer.json()["error"]["message"] == "/v1/classify does not take GET"
