"""One small service for the tests that only ask it."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from paths import REPO
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


@pytest.fixture(scope="session")
def start_process(tmp_path_factory):
    """Servers of the bundled model in processes of their own; the second starts from files."""
    compiled = str(tmp_path_factory.mktemp("compiled"))

    @contextmanager
    def started(**options):
        script = REPO / "tests/support/bundled_server.py"
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        environment["JAX_COMPILATION_CACHE_DIR"] = compiled
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        process = subprocess.Popen(
            [sys.executable, script, json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
            env=environment,
        )
        try:
            process.url = process.stdout.readline().strip()
            assert process.url.startswith("http://"), process.url
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()

    return started


@pytest.fixture(scope="session")
def url(start_process):
    """Of one server in a process, for tests that only ask it."""
    with start_process() as process:
        yield process.url
