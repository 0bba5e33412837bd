import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emoji_pictures import PICTURES, as_base64, as_uri

from siglip_jax.serve import Limits
from siglip_jax.serve.admission import Admission
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.metrics import Metrics

HELD = ("requests", "waiting_images", "waiting_texts", "bytes", "pixels")
ASKED = {"input": as_uri(PICTURES[0]), "labels": ["a juice box"]}


def test_what_is_held_is_given_back():
    admission = Admission(Limits(waiting_images=3), Metrics())
    with admission.images(2):
        with pytest.raises(ApiError) as caught, admission.images(2):
            pass
        assert admission.held("waiting_images") == 2
    assert admission.held("waiting_images") == 0
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) >= 1
    with pytest.raises(ValueError), admission.images(3):
        raise ValueError
    assert admission.held("waiting_images") == 0


def test_more_than_can_ever_be_held_is_too_large():
    with pytest.raises(ApiError) as caught, Admission(Limits(pixels=10), Metrics()).pixels(11):
        pass
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("limits", "status", "said"),
    [
        ({"body": 100}, 413, "at most 100 are taken"),
        ({"pixels": 1}, 413, "pixels"),
        ({"images": 1}, 400, "at most 1 are taken"),
        ({"scores": 1}, 400, "give top"),
        ({"texts": 1}, 400, "1 texts"),
        ({"bytes": 100}, 413, "bytes"),
        ({"waiting_images": 1}, 413, "the request has 2 images, and the service holds 1"),
        ({"waiting_texts": 1}, 413, "the request has 2 texts, and the service holds 1"),
    ],
)
def test_each_bound_is_said(start, limits, status, said):
    with start(batch_size=1, text_batch_size=1, limits=Limits(**limits)) as client:
        asked = ASKED | {"input": [as_uri(PICTURES[0])] * 2, "labels": ["a", "b"]}
        if "pixels" in limits:
            asked = ASKED
        answer = client.post("/v1/classify", json=asked)
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]["message"]
        held = client.service.admission.held
        assert [held(what) for what in HELD] == [0] * 5


def test_as_many_labels_as_a_request_may_have_are_no_more_than_the_service_holds():
    bounds = Limits()
    assert bounds.labels <= bounds.texts <= bounds.waiting_texts
    assert bounds.images <= bounds.waiting_images
    assert bounds.body <= bounds.bytes


def test_labels_do_not_count_as_images(start):
    with start(batch_size=1, text_batch_size=1, limits=Limits(waiting_images=1)) as client:
        answer = client.post("/v1/classify", json=ASKED | {"labels": ["a", "b", "c"]})
        assert answer.status_code == 200, answer.text


def test_over_the_bound_the_rest_is_refused_at_once_and_what_was_accepted_is_answered(start):
    with start(batch_size=1, text_batch_size=1, limits=Limits(requests=2)) as client:
        model = client.service.models["emoji"]
        free = threading.Event()
        model.scorer.program.images, run = None, model.scorer.program.images

        def held(params, batch):
            assert free.wait(60)
            return run(params, batch)

        model.scorer.program.images = held
        with ThreadPoolExecutor(2) as pool:
            accepted = [pool.submit(client.post, "/v1/classify", json=ASKED) for _ in range(2)]
            while client.service.admission.held("requests") < 2:
                time.sleep(0.01)
            refused = client.post("/v1/classify", json=ASKED)
            assert client.get("/health/ready").status_code == 200
            free.set()
            assert [each.result().status_code for each in accepted] == [200, 200]
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert client.post("/v1/classify", json=ASKED).status_code == 200


def test_where_no_image_may_wait_a_request_of_one_is_refused_unread(start):
    """And one of a text is answered."""
    with start(batch_size=1, text_batch_size=1, limits=Limits(waiting_images=1)) as client:
        model = client.service.models["emoji"]
        free, run = threading.Event(), model.scorer.program.images
        model.scorer.program.images = lambda *given: free.wait(60) and run(*given)
        with ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(client.post, "/v1/classify", json=ASKED)
            while client.service.admission.held("waiting_images") < 1:
                time.sleep(0.01)
            for path in ("/v1/classify", "/", "/models/emoji"):
                assert client.post(path, content=b"this would be 400").status_code == 429, path
            text = client.post("/v1/embeddings", json={"input": "a juice box"})
            assert text.status_code == 200, text.text
            free.set()
            assert accepted.result().status_code == 200
        assert client.post("/v1/classify", content=b"this would be 400").status_code == 400


def test_a_request_has_a_deadline_of_its_own(start):
    with start(batch_size=1, text_batch_size=1, limits=Limits(timeout=60)) as client:
        model = client.service.models["emoji"]
        free, run = threading.Event(), model.scorer.program.images
        model.scorer.program.images = lambda *given: free.wait(60) and run(*given)
        late = client.post("/v1/classify", json=ASKED, headers={"X-Request-Timeout": "0.2"})
        free.set()
        assert late.status_code == 504
        assert "more than 0.2 s" in late.json()["error"]["message"]
        assert client.post("/v1/classify", json=ASKED).status_code == 200
        wrong = client.post("/v1/classify", json=ASKED, headers={"X-Request-Timeout": "soon"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-request-timeout")


def test_a_client_that_goes_costs_nothing(client):
    """As a server says it: the body comes, and then the end of the connection."""
    service = client.service

    async def ask():
        body = b'{"input": "%s", "labels": ["never seen, and gone"]}'
        messages = [
            {"type": "http.request", "body": body % as_base64(PICTURES[0]).encode()},
            {"type": "http.disconnect"},
        ]
        sent = []

        async def receive():
            return messages.pop(0) if messages else await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/classify", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "app": client.app,
        }  # fmt: skip
        await client.app(scope, receive, send)
        return sent[0]["status"]

    assert client.portal.call(ask) == 499
    held = service.admission.held
    deadline = time.monotonic() + 30
    while any(held(what) for what in HELD):
        assert time.monotonic() < deadline
    assert client.post("/v1/classify", json=ASKED).status_code == 200


def test_answers_do_not_depend_on_what_they_were_batched_with(client, scorer):
    labels = [f"{colour} circle" for colour in ("a red", "a brown", "a blue")]
    expected = scorer.score(PICTURES, labels).logits
    recompiles = client.service.metrics.recompiles._value.get()

    def ask(i):
        asked = {"input": as_base64(PICTURES[i % 8]), "labels": labels[: 1 + i % 3]}
        answer = client.post("/v1/classify", json=asked)
        assert answer.status_code == 200, answer.text
        return {s["label"]: s["logit"] for s in answer.json()["data"][0]["scores"]}

    with ThreadPoolExecutor(16) as pool:
        for i, found in enumerate(pool.map(ask, range(160))):
            assert len(found) == 1 + i % 3
            for label, logit in found.items():
                np.testing.assert_allclose(logit, expected[i % 8, labels.index(label)], atol=1e-5)
    assert client.service.metrics.recompiles._value.get() == recompiles
