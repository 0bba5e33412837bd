"""One small service for the tests that only ask it."""

import time
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

import siglip_jax
from siglip_jax.serve import create_app

SMALL = {"batch_size": 4, "text_batch_size": 4, "workers": 2}


@contextmanager
def running(**options):
    """A client of a service of the bundled model, once it is ready."""
    app = create_app({"emoji": siglip_jax.load("siglip_emoji")}, **{**SMALL, **options})
    with TestClient(app, raise_server_exceptions=False) as client:
        client.service = app.state.service
        deadline = time.monotonic() + 120
        while client.get("/health/ready").status_code != 200:
            assert client.get("/health").status_code == 200, client.service.failed
            assert time.monotonic() < deadline, "the service is not ready"
            time.sleep(0.02)
        yield client


@pytest.fixture(scope="session")
def client():
    with running() as client:
        yield client


@pytest.fixture(scope="session")
def start():
    """Services with other options; each ends with the `with` block that it is used in."""
    return running


@pytest.fixture(scope="session")
def scorer():
    """The same model in this process."""
    return siglip_jax.load("siglip_emoji").scorer(batch_size=4, text_batch_size=4)
