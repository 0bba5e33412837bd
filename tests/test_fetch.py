"""Where files are looked for and how they are downloaded, without a network."""

import dataclasses
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

    def open(self, request, timeout):
        url = request.full_url
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
    gemma = dataclasses.replace(VOCABULARIES["gemma"], sha256=None)
    assert fetch_vocabulary(gemma) == tmp_path / "t"
    assert network.asked[-1] == "hub google/siglip2-base-patch16-224 tokenizer.model"
    assert files(tmp_path) == []


def test_then_the_storage(home, network):
    network.stored[SIGLIP2.url] = Response(b"weights", 7)
    assert fetch_weights(SIGLIP2) == home / SIGLIP2.file
    assert network.asked[-2:] == ["hub", SIGLIP2.url]
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
        assert SIGLIP.file not in files(home) and all(name[0] == "." for name in files(home))

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


WEIGHTS = "the weight file of siglip_b16_224", SIGLIP.url, SIGLIP.file
C4_EN = "the vocabulary c4_en", VOCABULARIES["c4_en"].url, "c4_en.model"
MC4 = "the vocabulary mc4", VOCABULARIES["mc4"].url, "mc4.model"


@pytest.mark.parametrize(
    ("find_it", "lacking", "there", "hint"),
    [
        (lambda: fetch_weights(SIGLIP), [WEIGHTS, C4_EN], [], "siglip_b16_224"),
        (lambda: fetch_weights(SIGLIP), [WEIGHTS], ["c4_en.model"], "siglip_b16_224"),
        (lambda: fetch_vocabulary(VOCABULARIES["mc4"]), [MC4], [], ""),
    ],
)
def test_without_a_network_one_line_says_all_there_is_to_fetch(
    home, network, find_it, lacking, there, hint
):
    home.mkdir()
    for name in there:
        (home / name).touch()
    with pytest.raises(ValueError, match="cannot find") as error:
        find_it()
    what = " and ".join(name for name, _, _ in lacking)
    steps = ", and ".join(f"{url} and put it at {home / file}" for _, url, file in lacking)
    hint = f" (`siglip-jax fetch {hint}` does so where there is a network)" if hint else ""
    them = "them" if len(lacking) > 1 else "it"
    assert str(error.value) == (
        f"cannot find {what} on this machine, nor download {them} (Name or service not known); "
        f"fetch {steps}{hint}"
    )
    # And that is where it is found.
    file = home / lacking[0][2]
    file.touch()
    assert find_it() == file


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_means_offline(home, network, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(ValueError, match=r"nor download them \(HF_HUB_OFFLINE is set\); fetch h"):
        fetch_weights(SIGLIP)
    assert all(line.startswith("cache ") for line in network.asked)


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


def cached_repository(folder, *commits, main=None):
    """A repository as huggingface_hub's cache has it; each snapshot holds a file `a`."""
    for commit in commits:
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "a").touch()
    (folder / "refs").mkdir(parents=True)
    if main:
        (folder / "refs" / "main").write_text(main)
    return folder


def test_a_folder_of_the_hubs_cache_is_its_main_snapshot(tmp_path):
    folder = cached_repository(tmp_path / "models--me--mine", "01ab", "23cd", main="23cd")
    there = folder / "snapshots"
    assert fetch.snapshot(folder) == there / "23cd"
    assert fetch.snapshot(folder, "01ab") == fetch.snapshot(folder, "01") == there / "01ab"
    assert fetch.fetch_model(folder, list).path == there / "23cd"
    with pytest.raises(ValueError, match=r"without the files of 'v2'; its snapshots holds 01ab, 2"):
        fetch.snapshot(folder, "v2")
    assert fetch.snapshot(there) == there  # any other folder is itself


def test_without_a_main_branch_there_must_be_one_snapshot(tmp_path):
    one = cached_repository(tmp_path / "models--me--one", "01ab")
    assert fetch.snapshot(one).name == "01ab"
    two = cached_repository(tmp_path / "models--me--two", "01ab", "23cd")
    with pytest.raises(ValueError, match="without the files of 'main'; its snapshots holds 01ab"):
        fetch.snapshot(two)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("google/siglip2-base-patch16-225", "google/siglip2-base-patch16-224"),
        ("google/siglip2", "google/siglip2-base-patch32-256"),
        ("me/mine", None),
    ],
)
def test_a_repository_that_is_not_here_may_be_misspelled(monkeypatch, tmp_path, name, near):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set") as error:
        fetch.fetch_model(name, list)
    assert str(error.value).endswith(f"; did you mean {near}?" if near else "is set)")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("towr", "no released checkpoint is called 'towr', nor a file or folder here; did you mean "
         "tower?"),
        ("runs/setp-100", "; did you mean runs/step-100?"),
        ("siglip_b16_22", "no released checkpoint is called 'siglip_b16_22'; did you mean "
         "siglip_b16_224?"),
    ],
)  # fmt: skip
def test_a_misspelled_folder_is_offered(monkeypatch, tmp_path, name, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for folder in ("tower", "runs/step-100"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError) as error:
        fetch.fetch_model(name, sorted)
    assert str(error.value).endswith(said)
