"""Sources in buckets and on web servers: fsspec's memory, and a server of our own."""

import contextlib
import functools
import gzip
import http.server
import pickle
import random
import sys
import threading

import fsspec
import pytest
from job_inputs import items
from pair_files import png, samples, write_parquet, write_tar

from siglip_jax.data import failures, open_items, open_pairs, remote
from siglip_jax.data.storage import open_binary, read_bytes

pytestmark = pytest.mark.filterwarnings("ignore:.*what is no image is left out")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def files(tmp_path):
    """Every kind of source, in a folder."""
    folder = tmp_path / "served"
    (folder / "pictures" / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        (folder / "pictures" / name).write_bytes(png(number))
    (folder / "pictures" / "notes.md").write_text("no image")
    for name in ("a.txt", "b.json", "sub/c.txt"):
        (folder / "pictures" / name).write_text('{"text": "a dog"}')
    (folder / "tars").mkdir()
    for shard in range(2):
        members = []
        for key, image, texts in samples(3):
            members += [(f"{key}.png", image), (f"{key}.txt", "\n".join(texts).encode())]
        tar = write_tar(folder / "tars" / f"{shard}.tar", members)
    (folder / "packed.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    write_parquet(folder / "t.parquet")
    (folder / "t.csv").write_text("image,text\npictures/a.png,a dog\npictures/x.png,a cat\n")
    (folder / "list.txt").write_text("one\ntwo\n")
    return folder


@pytest.fixture
def memory(files):
    fs = fsspec.filesystem("memory")
    fs.put(str(files), "/bucket", recursive=True)
    yield "memory://bucket"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Whole files only, as the standard library has it; fails when `failures` says so."""

    failures: list = []  # noqa: RUF012 - set by each test
    asked: list = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        if self.failures and self.failures[0][0] in self.path:
            code, cut = self.failures.pop(0)[1:]
            if code:
                self.send_error(code)
                return
            self._send(cut)
            return
        super().do_GET()

    def _send(self, cut):
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            data = file.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut])

    def copyfile(self, source, output):
        # Who does not want the rest of a file hangs up.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().copyfile(source, output)

    def log_message(self, *args):
        pass


class RangeHandler(Handler):
    """Parts of files, as a bucket's front door gives them."""

    def do_GET(self):
        wanted = self.headers.get("Range", "")
        if not wanted or self.failures:
            return super().do_GET()
        self.asked.append(self.path)
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            data = file.read()
        start, end = wanted.removeprefix("bytes=").split("-")
        part = data[int(start) : int(end) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)


def served(files, handler):
    handler.failures, handler.asked = [], []
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(files))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def plain(files):
    yield from served(files, Handler)


@pytest.fixture
def ranged(files):
    yield from served(files, RangeHandler)


def contents(source):
    """Keys and bytes or texts, whether the source gives paths or bytes."""
    found = []
    for item in items(source):
        image = item.image
        if isinstance(image, str):
            with open(image, "rb") as file:  # noqa: PTH123
                image = file.read()
        found.append((item.key, image, item.text, item.error))
    return found


SPECS = ["pictures", "pictures/*.png", "tars", "tars/{0..1}.tar", "packed.tar.gz", "t.parquet"]


@pytest.mark.parametrize("spec", [*SPECS, "texts:list.txt"])
def test_a_bucket_gives_what_the_folder_gives(files, memory, spec):
    def at(root):
        return f"texts:{root}/{spec[6:]}" if spec.startswith("texts:") else f"{root}/{spec}"

    remote = open_items([at(memory)], shard_size=2)
    here = open_items([at(files)], shard_size=2)
    assert contents(remote) == contents(here)
    assert remote.shards() == here.shards()
    copy = pickle.loads(pickle.dumps(remote))
    assert contents(copy) == contents(remote)
    assert copy.identity() == remote.identity()


def pairs_of(spec):
    pairs = open_pairs(spec)
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy.identity() == pairs.identity()
    return [copy[index] for index in reversed(range(len(copy)))]


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "packed.tar.gz"])
def test_pairs_of_a_bucket_are_those_of_the_folder(files, memory, spec):
    found = pairs_of(f"{memory}/{spec}")
    assert found == pairs_of(f"{files}/{spec}")
    assert all(pair.captions for pair in found)
    # An item and a pair of one file are called alike, and hold the same.
    keyed = {
        key: (image, text) for key, image, text, _ in contents(open_items([f"{files}/{spec}"]))
    }
    assert keyed == {pair.key: (pair.image, pair.captions[0]) for pair in found}


@pytest.mark.parametrize("spec", ["tars/{0..1}.tar", "t.parquet"])
def test_pairs_of_a_web_server_with_ranges(files, ranged, spec):
    expected = pairs_of(f"{files}/{spec}")
    RangeHandler.asked.clear()
    assert pairs_of(f"{ranged}/{spec}") == expected


def test_an_image_in_a_remote_tar_is_read_alone(files, ranged, monkeypatch):
    large = [
        (f"{n}.{e}", content)
        for n in range(3)
        for e, content in (("png", random.Random(n).randbytes(3_000_000)), ("txt", b"a dog"))
    ]
    write_tar(files / "large.tar", large)
    pairs = open_pairs(f"{ranged}/large.tar")
    given = []
    send = RangeHandler.send_header
    monkeypatch.setattr(
        RangeHandler,
        "send_header",
        lambda self, name, value: given.append((name, value)) or send(self, name, value),
    )
    assert pairs[1].image == large[2][1]
    assert [value for name, value in given if name == "Content-Length"] == ["3000000"]


def test_a_web_server_without_ranges_gives_small_tars_and_no_large_ones(files, plain):
    spec = "tars/{0..1}.tar"
    assert pairs_of(f"{plain}/{spec}") == pairs_of(f"{files}/{spec}")
    # More than the first 5 MiB, which are read at once.
    members = [(f"{n}.{e}", random.randbytes(2_000_000)) for n in range(4) for e in ("png", "x")]
    write_tar(files / "big.tar", members)
    with pytest.raises(ValueError, match=r"/big\.tar: the server gives whole files only, and") as e:
        open_pairs(f"{plain}/big.tar")
    assert str(e.value).startswith(f"{plain}/big.tar: ")
    assert str(e.value).endswith("a tar in random access is read in parts; download it first")


def test_a_pair_that_is_gone_or_refused_is_named_by_its_url(files, memory, plain):
    pairs = open_pairs(f"{memory}/tars/0.tar")
    fsspec.filesystem("memory").rm("/bucket/tars/0.tar")
    with pytest.raises(ValueError, match=r"^0\.tar/0001: memory:///bucket/tars/0\.tar: no such f"):
        pairs[1]
    pairs = open_pairs(f"{plain}/pictures/a.png")
    Handler.failures[:] = [("a.png", 403, 0)]
    with pytest.raises(ValueError, match=f"^{plain}/pictures/a.png: access is refused$"):
        pairs[0]


@pytest.mark.parametrize("spec", ["tars/{0..1}.tar", "packed.tar.gz", "t.parquet"])
def test_a_web_server_with_ranges(files, ranged, spec):
    expected = contents(open_items([f"{files}/{spec}"]))
    assert contents(open_items([f"{ranged}/{spec}"])) == expected


@pytest.mark.parametrize("spec", ["tars/{0..1}.tar", "packed.tar.gz"])
def test_a_web_server_without_ranges(files, plain, spec):
    expected = contents(open_items([f"{files}/{spec}"]))
    assert contents(open_items([f"{plain}/{spec}"])) == expected


def test_a_table_of_remote_pictures(files, plain, memory):
    found = items(open_items([f"{memory}/t.csv"]))
    assert found[0] == ("pictures/a.png", png(0), "a dog", None)
    assert found[1].key == "pictures/x.png"
    assert found[1].error == "memory:///bucket/pictures/x.png: no such file or folder"
    (files / "urls.csv").write_text(f"image\n{plain}/pictures/a.png\n{plain}/pictures/no.png\n")
    found = items(open_items([str(files / "urls.csv")]))
    assert found[0][:2] == (f"{plain}/pictures/a.png", png(0))
    assert found[1].error == f"{plain}/pictures/no.png: no such file or folder"


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_transient_error_is_tried_again(plain, code):
    Handler.failures[:] = [("a.png", code, 0)] * 3
    assert items(open_items([f"{plain}/pictures/a.png"]))[0].image == png(0)
    assert Handler.failures == []
    Handler.failures[:] = [("a.png", code, 0)] * 4
    error = items(open_items([f"{plain}/pictures/a.png"]))[0].error
    assert error.startswith(f"{plain}/pictures/a.png: cannot be reached after 4 tries: {code}")


def test_a_broken_line_is_mended(files, plain):
    """The rest is read from where it broke off, even where only whole files are given."""
    big = files / "big.tar"
    write_tar(big, [(f"{n}.png", png(n) * 1000) for n in range(20)])
    Handler.failures[:] = [("big.tar", 0, 2_000_000)] * 2
    with open_binary(f"{plain}/big.tar") as opened:
        assert opened.read() == big.read_bytes()
    assert Handler.failures == []


@pytest.mark.parametrize("code", [401, 403])
def test_refused_access_is_not_tried_again(plain, code):
    Handler.failures[:] = [("a.png", code, 0)] * 4
    error = items(open_items([f"{plain}/pictures/a.png"]))[0].error
    assert error == f"{plain}/pictures/a.png: access is refused"
    assert len(Handler.failures) == 3


def test_errors_of_a_bucket(files, memory, plain):
    # More than the first 5 MiB, which are read at once.
    write_parquet(files / "big.parquet", image=[random.randbytes(1_000_000) for n in range(7)])
    cases = {
        f"{memory}/pictures/aa.png": "no such file or folder; did you mean memory://bucket/pict",
        f"{memory}/nothing/*.tar": "no file matches this pattern",
        f"{memory}/nothing": "no such file or folder",
        f"{plain}/tars/9.tar": "no such file or folder",
        f"{plain}/big.parquet": "the server gives whole files only, and Parquet is read in parts",
        "memry://bucket/a.png": r"there is no protocol memry://; did you mean memory://\?",
        "http://127.0.0.1:9/a.tar": "cannot be reached after 4 tries: .*[Cc]onnect",
    }
    for spec, message in cases.items():
        for opened in (open_items, open_pairs):
            with pytest.raises(ValueError, match=message) as caught:
                opened(spec)
            assert str(caught.value).startswith(spec)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "module", "package"),
    [("gs://b/a.tar", "gcsfs", "gcsfs"), ("s3://b/a.tar", "s3fs", "s3fs")],
)
def test_a_missing_package_is_named(monkeypatch, spec, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"{spec}: .*needs another.*pip install {package}$"):
        open_items([spec])


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoCredentialsError("Unable to locate credentials"), "no credentials are found; log in"),
        (PermissionError("AccessDenied"), "access is refused"),
        (TimeoutError(), "cannot be reached after 4 tries: TimeoutError"),
    ],
)
def test_what_packages_raise(memory, monkeypatch, error, message):
    from fsspec.implementations.memory import MemoryFileSystem

    def info(self, path, **options):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    with pytest.raises(ValueError, match=f"memory://bucket/a.png: {message}"):
        open_items([f"{memory}/a.png"])


def test_how_to_log_in_depends_on_the_bucket():
    error = NoCredentialsError("none")
    assert "aws configure" in failures.explained("s3://b/a", error)
    assert "gcloud auth" in failures.explained("gs://b/a", error)
    assert "HF_TOKEN" in failures.explained("hf://datasets/a/b", PermissionError("no"))


class Endless(http.server.BaseHTTPRequestHandler):
    """An image that never ends, whatever part is asked for."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *args):
        pass


def test_a_body_that_does_not_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "MOST", 3 << 20)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/a.png"
    (tmp_path / "a.csv").write_text(f"image,caption\n{url},a dog\n")
    (item,) = items(open_items([str(tmp_path / "a.csv")]))
    said = "it has more than the 3,145,728 bytes that fit here"
    assert item.error == f"{url}: cannot be read: {said}"
    with pytest.raises(ValueError, match=said):
        open_pairs(str(tmp_path / "a.csv"))[0]
    server.shutdown()
    server.server_close()


def test_a_file_of_a_bucket_that_is_too_large(files, memory, monkeypatch):
    monkeypatch.setattr(remote, "MOST", 10)
    fsspec.filesystem("memory").pipe({"/bucket/x/empty": b"", "/bucket/x/ten": b"0123456789"})
    assert read_bytes(f"{memory}/x/empty") == b""
    assert read_bytes(f"{memory}/x/ten") == b"0123456789"
    with pytest.raises(ValueError, match="it has more than the 10 bytes that fit here"):
        read_bytes(f"{memory}/pictures/a.png")


class ClientError(OSError):
    """As boto's."""

    def __init__(self, code, status):
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "cause", "passing"),
    [
        (PermissionError("The provided token has expired."), None, True),
        (OSError(22, "the token has expired"), ClientError("ExpiredTokenException", 400), True),
        (OSError(22, "an argument is wrong"), ClientError("InvalidArgument", 400), False),
        (PermissionError("denied"), ClientError("AccessDenied", 403), False),
    ],
)
def test_what_amazon_refuses_is_not_asked_again(error, cause, passing):
    """And what fails because a login expired is for the next run, not in error for ever."""
    asked = []
    error.__cause__ = cause

    def action():
        asked.append(1)
        raise error

    with pytest.raises(ValueError, match=r"^s3://b/a: ") as raised:
        failures.retrying("s3://b/a", action)
    assert len(asked) == 1 and isinstance(raised.value, failures.PassingError) == passing
    assert ("the login has expired; renew it: aws configure" in str(raised.value)) == passing
