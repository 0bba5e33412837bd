"""What fails for a reason that may pass is tried again, and is not final above the share."""

import errno
import functools
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
from job_inputs import picture, table
from saved_model import saved
from tolerances import EMBEDDING

import siglip_jax
from siglip_jax.data import failures
from siglip_jax.jobs import embed, worker
from siglip_jax.regular_file import read_regular

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(worker, "AGAIN", 0.0)


class Server(http.server.SimpleHTTPRequestHandler):
    """Answers 503 to as many requests for a file as `down` says of it."""

    down: dict = {}  # noqa: RUF012 - set by each test
    lock = threading.Lock()

    def do_GET(self):
        with self.lock:
            left = self.down.get(self.path, 0)
            self.down[self.path] = left - 1
        if left > 0:
            self.send_error(503)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """(a list of the URLs of nine pictures, which requests fail)."""
    folder = tmp_path / "served"
    folder.mkdir()
    for n in range(9):
        (folder / f"{n}.png").write_bytes(picture(n))
    kind = type("Here", (Server,), {"down": {}})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(kind, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/{n}.png" for n in range(9)]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    yield str(tmp_path / "urls.txt"), kind.down, folder
    server.shutdown()
    server.server_close()


def test_an_outage_is_over_before_the_shard_is_written(model, served, tmp_path):
    urls, down, folder = served
    # Six answers: more than the tries of one file.
    down.update({"/1.png": 6, "/2.png": 6, "/5.png": 6})
    result = embed(urls, tmp_path / "out", model=model, shard_size=4)
    assert (result.code, result.errors, result.passing, result.items) == (0, 0, 0, 9)
    embed(str(folder), tmp_path / "files", model=model, shard_size=4)
    rows, files = (table(tmp_path / name) for name in ("out", "files"))
    assert [k.rpartition("/")[2] for k in rows["key"].to_pylist()] == files["key"].to_pylist()
    assert rows["width"].to_pylist() == files["width"].to_pylist()
    np.testing.assert_allclose(
        np.array(rows["embedding"].to_pylist()),
        np.array(files["embedding"].to_pylist()),
        rtol=0,
        atol=EMBEDDING,
    )


def test_a_server_that_is_down_leaves_nothing_final(model, served, tmp_path):
    urls, down, _ = served
    down.update({f"/{n}.png": 10**6 for n in range(3)})
    result = embed(urls, tmp_path / "out", model=model, shard_size=3)
    assert (result.finished, result.code, result.passing) == (False, 2, 3)
    assert "3 items may be readable later: 3 of 3 shards are done" in result.sentence()
    assert "503" in result.reasons[0]["error"]
    down.clear()
    again = embed(urls, tmp_path / "out", model=model, shard_size=3)
    assert (again.finished, again.code, again.errors, again.run["items"]) == (True, 0, 0, 3)


def test_within_the_share_it_is_for_retry(model, served, tmp_path):
    urls, down, folder = served
    (folder / "7.png").write_bytes(b"no image")
    (folder / "8.png").unlink()
    down.update({"/1.png": 10**6})
    options = {"model": model, "shard_size": 3, "max_error_share": 0.5}
    result = embed(urls, tmp_path / "out", **options)
    assert (result.finished, result.code, result.errors, result.passing) == (True, 0, 3, 1)
    down.clear()
    assert embed(urls, tmp_path / "out", **options).already
    again = embed(urls, tmp_path / "out", retry=True, **options)
    # The shard of the broken and the missing one is not looked at.
    assert (again.errors, again.passing, again.run["items"]) == (2, 0, 3)
    assert embed(urls, tmp_path / "out", retry=True, **options).already
    assert embed(urls, tmp_path / "out", retry="all", **options).run["items"] == 3


def test_an_update_tries_it_again(model, served, tmp_path):
    urls, down, _ = served
    down.update({"/1.png": 10**6})
    options = {"model": model, "max_error_share": 0.5, "update": True}
    assert embed(urls, tmp_path / "out", **options).passing == 1
    down.clear()
    again = embed(urls, tmp_path / "out", **options)
    assert (again.errors, again.passing, again.run["items"], again.items) == (0, 0, 1, 9)


def test_a_disk_that_fails_for_a_moment(model, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(picture(n))
    left = {"1.png": 6, "2.png": 10**6}

    def failing(path, most):
        name = Path(path).name
        if left.get(name, 0) > 0:
            left[name] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return read_regular(path, most)

    monkeypatch.setattr("siglip_jax.scoring.preparation.read_regular", failing)
    result = embed(str(folder), tmp_path / "out", model=model)
    assert (result.code, result.errors, result.passing) == (2, 1, 1)
    assert result.reasons[0]["error"] == f"{folder}/2.png: cannot be read: Input/output error"
    left.clear()
    assert embed(str(folder), tmp_path / "out", model=model).code == 0


def test_no_other_try_for_what_does_not_pass(monkeypatch):
    tries = []

    def gone():
        tries.append(1)
        raise FileNotFoundError(2, "No such file or directory")

    for where in ("a.png", "http://127.0.0.1/a.png"):
        with pytest.raises(ValueError, match="no such file") as raised:
            failures.retrying(where, gone)
        assert not isinstance(raised.value, failures.PassingError)
    assert len(tries) == 2
