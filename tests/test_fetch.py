"""Where files are looked for and how they are downloaded, without a network."""

import http.client
import io
import os
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import pytest

from siglip_jax import fetch
from siglip_jax.checkpoints import VOCABULARIES, find
from siglip_jax.fetch import fetch_vocabulary, fetch_weights

SIGLIP, SIGLIP2 = find("siglip_b16_224"), find("siglip2_b16_256")


class Response(io.BytesIO):
    def __init__(self, data, length=None):
        super().__init__(data)
        self.headers = {} if length is None else {"Content-Length": str(length)}


class Network:
    """Stands in for the hub and the storage; keeps what was asked of it."""

    def __init__(self, monkeypatch, folder):
        self.asked, self.cached, self.on_hub, self.stored = [], {}, {}, {}
        self.folder = folder
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", self.cache)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(urllib.request, "urlopen", self.open)

    def cache(self, repository, file):
        self.asked.append(f"cache {repository} {file}")
        return self.cached.get((repository, file))

    def metadata(self, url, timeout):
        if not self.on_hub:
            self.asked.append("hub")
            raise ConnectionError("no route to the hub\nand a second line")

    def download(self, repository, file):
        self.asked.append(f"hub {repository} {file}")
        return self.on_hub[repository, file]

    def open(self, url, timeout):
        self.asked.append(url)
        if url not in self.stored:
            raise urllib.error.URLError(OSError(-2, "Name or service not known"))
        return self.stored[url]


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def network(monkeypatch, tmp_path):
    return Network(monkeypatch, tmp_path)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_at_home_asks_nobody(home, network):
    home.mkdir()
    (home / SIGLIP2.file).touch()
    (home / "gemma.model").touch()
    assert fetch_weights(SIGLIP2) == home / SIGLIP2.file
    assert fetch_vocabulary(VOCABULARIES["gemma"]) == home / "gemma.model"
    assert network.asked == []


def test_then_the_cache_of_the_hub(home, network, tmp_path):
    network.cached["google/siglip2-base-patch16-256-jax", SIGLIP2.file] = str(tmp_path / "c")
    assert fetch_weights(SIGLIP2) == tmp_path / "c"
    assert network.asked == [f"cache google/siglip2-base-patch16-256-jax {SIGLIP2.file}"]


def test_then_the_hub(home, network, tmp_path):
    network.on_hub["google/siglip2-base-patch16-224", "tokenizer.model"] = str(tmp_path / "t")
    assert fetch_vocabulary(VOCABULARIES["gemma"]) == tmp_path / "t"
    assert network.asked[-1] == "hub google/siglip2-base-patch16-224 tokenizer.model"
    assert files(tmp_path) == []


def test_then_the_storage(home, network):
    network.stored[SIGLIP2.url] = Response(b"weights", 7)
    assert fetch_weights(SIGLIP2) == home / SIGLIP2.file
    assert network.asked[1:] == ["hub", SIGLIP2.url]
    assert (home / SIGLIP2.file).read_bytes() == b"weights"


def test_siglip_is_on_no_hub(home, network):
    network.stored[SIGLIP.url] = Response(b"weights")
    assert fetch_weights(SIGLIP) == home / SIGLIP.file
    assert network.asked == [SIGLIP.url]


def test_a_download_has_another_name_until_it_is_whole(home, network):
    data = bytes(3 << 20)
    network.stored[SIGLIP.url] = Response(data, len(data))
    seen = []

    def progress(done, total):
        seen.append((done, total))
        assert SIGLIP.file not in files(home) and len(files(home)) == 1

    umask = os.umask(0o022)
    try:
        fetch_weights(SIGLIP, progress)
    finally:
        os.umask(umask)
    assert files(home) == [SIGLIP.file]
    assert (home / SIGLIP.file).stat().st_mode & 0o777 == 0o644  # others may read it
    assert seen == [((i + 1) << 20, 3 << 20) for i in range(3)]


class Interrupted(Response):
    def read(self, size=-1):
        if self.tell():
            raise self.error
        return super().read(size)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, r"the download ended after 7 of 100 bytes"),
        (ConnectionResetError(104, "Connection reset by peer"), r"Connection reset by peer"),
        (http.client.IncompleteRead(b"weights", 93), r"IncompleteRead"),
    ],
)
def test_a_download_cut_short_leaves_nothing(home, network, error, reason):
    response = Interrupted(b"weights", 100) if error else Response(b"weights", 100)
    response.error = error
    network.stored[SIGLIP.url] = response
    with pytest.raises(ValueError, match=reason):
        fetch_weights(SIGLIP)
    assert files(home) == []


def test_an_interrupt_leaves_nothing(home, network):
    network.stored[SIGLIP.url] = Response(b"weights", 7)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_weights(SIGLIP, interrupt)
    assert files(home) == []


def test_a_file_that_does_not_fit_is_not_begun(home, network, monkeypatch):
    network.stored[SIGLIP.url] = Response(b"weights", 1 << 60)
    with pytest.raises(ValueError, match=r"1,152,921,504,606,846,976 bytes do not fit on the disk"):
        fetch_weights(SIGLIP)
    assert files(home) == []


@pytest.mark.parametrize(
    ("find_it", "what", "url", "file"),
    [
        (lambda: fetch_weights(SIGLIP), "weight file of siglip_b16_224", SIGLIP.url, SIGLIP.file),
        (
            lambda: fetch_weights(SIGLIP2),
            "weight file of siglip2_b16_256",
            SIGLIP2.url,
            SIGLIP2.file,
        ),
        (
            lambda: fetch_vocabulary(VOCABULARIES["mc4"]),
            "vocabulary mc4",
            VOCABULARIES["mc4"].url,
            "mc4.model",
        ),
    ],
)
def test_without_a_network_one_line_says_what_to_fetch(home, network, find_it, what, url, file):
    with pytest.raises(ValueError, match="cannot find") as error:
        find_it()
    assert str(error.value) == (
        f"cannot find the {what} on this machine, nor download it (Name or service not known); "
        f"fetch {url} and put it at {home / file}"
    )
    # And that is where it is found.
    home.mkdir()
    (home / file).touch()
    assert find_it() == home / file


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_means_offline(home, network, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(ValueError, match=r"nor download it \(HF_HUB_OFFLINE is set\); fetch http"):
        fetch_weights(SIGLIP)
    assert network.asked == []


def test_not_found_is_not_no_network(home, network, monkeypatch):
    def missing(url, timeout):
        raise urllib.error.HTTPError(url, 404, "Not Found", {}, None)

    monkeypatch.setattr(urllib.request, "urlopen", missing)
    with pytest.raises(ValueError, match=r"\(HTTP Error 404: Not Found\)"):
        fetch_weights(SIGLIP)


def test_home(monkeypatch):
    monkeypatch.setenv("SIGLIP_JAX_HOME", "~/models")
    assert fetch.home() == Path.home() / "models"
    monkeypatch.delenv("SIGLIP_JAX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert fetch.home() == Path("/cache/siglip_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.home() == Path.home() / ".cache" / "siglip_jax"


def test_a_home_that_cannot_be_made(monkeypatch, network, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "file" / "home"))
    network.stored[SIGLIP.url] = Response(b"weights", 7)
    with pytest.raises(ValueError, match=r"\(Not a directory\); fetch "):
        fetch_weights(SIGLIP)
