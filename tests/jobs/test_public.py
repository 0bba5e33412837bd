"""Users, passwords and signatures in URLs: in no key, record, message or identity."""

import functools
import http.server
import threading
import time

import pytest
from job_inputs import items, picture
from pair_files import write_tar
from saved_model import saved

import siglip_jax
from siglip_jax.data import failures, open_items, remote
from siglip_jax.jobs import embed, worker

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0.0,))
    monkeypatch.setattr(worker, "AGAIN", 0.0)


class Server(http.server.SimpleHTTPRequestHandler):
    """Whole files, 404, and a file that comes a byte at a time."""

    def do_GET(self):
        if "slow" not in self.path:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass  # given up

    def log_message(self, *args):
        pass


@pytest.fixture
def host(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(picture(n))
    write_tar(folder / "t.tar", [("a.png", picture(1)), ("b.png", b"?")])
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Server, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def signed(host, name, signature):
    return f"http://me:PASSWORD@{host}/{name}?X-Amz-Signature={signature}"


@pytest.mark.parametrize("kind", ["list.txt", "table.csv", "t.tar"])
def test_no_secret_is_kept_and_a_list_that_is_signed_anew_is_the_same(
    host, kind, tmp_path, capfd, recwarn
):
    model = siglip_jax.load(saved(tmp_path / "m"))
    said = []
    for signature in ("SECRETSIG", "ANOTHERSECRETSIG"):
        source = str(tmp_path / kind)
        urls = [signed(host, name, signature) for name in ("0.png", "1.png", "gone.png")]
        if kind == "list.txt":
            (tmp_path / kind).write_text("\n".join(urls))
        elif kind == "table.csv":
            (tmp_path / kind).write_text("url\n" + "\n".join(urls) + "\n")
        else:
            source = signed(host, kind, signature)
        result = embed(source, tmp_path / "out", model=model, max_error_share=1)
        said.append(result.sentence() + str(result.describe()))
    assert result.already and result.errors == 1
    keys = [item.key for item in items(open_items([source], only="images"))]
    assert len(set(keys)) == len(keys) == result.items
    if kind != "t.tar":
        assert keys == [f"http://{host}/{name}" for name in ("0.png", "1.png", "gone.png")]
        assert f"http://{host}/gone.png: no such file or folder" in said[0]
    said += [*capfd.readouterr(), *(str(one.message) for one in recwarn)]
    said += [path.read_bytes().decode("latin-1") for path in (tmp_path / "out").rglob("*.*")]
    for secret in ("SECRETSIG", "PASSWORD", "X-Amz"):
        assert not any(secret in text for text in said), secret
    with pytest.raises(ValueError, match="no such file") as raised:
        open_items([signed(host, "none.tar", "SECRETSIG")])
    assert "SECRET" not in str(raised.value) and "PASSWORD" not in str(raised.value)


def test_another_table_is_another_one(host, tmp_path):
    identities = []
    for names in (["0.png"], ["1.png"]):
        lines = [signed(host, name, "S") for name in names]
        (tmp_path / "t.csv").write_text("url\n" + "\n".join(lines) + "\n")
        identities.append(open_items([str(tmp_path / "t.csv")], only="images").identity())
    assert len(set(identities)) == 2


def test_a_server_that_dribbles_is_given_up(host, monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "WHOLE", 0.5)
    monkeypatch.setattr(failures, "PATIENCE", 0.1)
    (tmp_path / "l.txt").write_text(f"http://{host}/slow\n")
    (item,) = items(open_items([str(tmp_path / "l.txt")], only="images"))
    assert item.error.startswith(f"http://{host}/slow: cannot be reached after 1 try: ")
    assert "Timeout" in item.error and item.passing


def test_what_is_no_secret_stays():
    for where in ("what?.jpg", "s3://bucket/a?b.jpg", "hf://gpt2@main/a.jpg", "memory://a@b/c"):
        assert failures.public(where) == where
    assert failures.public("sftp://me:x@host/a@b.jpg") == "sftp://host/a@b.jpg"


def test_the_output_of_a_job_inside_its_source(tmp_path, monkeypatch):
    """A job that was killed could never go on: Parquet files were in the folder then."""
    model = siglip_jax.load(saved(tmp_path / "m"))
    for number, source in enumerate((".", "**/*")):
        photos = tmp_path / str(number)
        (photos / "sub").mkdir(parents=True)
        for name in ("a.png", "sub/b.png", "c.png"):
            (photos / name).write_bytes(picture(1))
        monkeypatch.chdir(photos)
        embed(source, "sub/index", model=model, shard_size=1)
        (photos / "sub/index/ledger/00001.json").unlink()
        (photos / "sub/index/summary.json").unlink()
        with pytest.warns(UserWarning, match="what jobs have written is left out: sub/index"):
            again = embed(source, "sub/index", model=model, shard_size=1)
        assert (again.finished, again.items, again.run["items"]) == (True, 3, 1)
