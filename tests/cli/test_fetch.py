"""`siglip-jax fetch`: what it brings, what it checks and says."""

import dataclasses
import hashlib
import json

import command_line
import huggingface_hub
import pytest
import storage_server
from PIL import Image

from siglip_jax import checkpoints, fetch

cli, surroundings, storage = command_line.cli, command_line.surroundings, storage_server.storage
pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def online(monkeypatch, storage):
    """The storage is a server of this process; there is no hub."""

    def no_hub(*args, **kw):
        raise ConnectionError("no route to the hub")

    server, url = storage
    host = url.rpartition("/")[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_hub)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(checkpoints, "_STORAGE", host)
    c4 = checkpoints.VOCABULARIES["c4_en"]
    here = dict.fromkeys(
        ["c4_en"], c4.__class__(**{**vars(c4), "url": f"{host}/c4", "sha256": None})
    )
    monkeypatch.setattr(checkpoints, "VOCABULARIES", checkpoints.VOCABULARIES | here)
    return server


def test_weights_and_vocabulary_are_brought_and_checked(cli, online, tmp_path):
    online.hang_up[:] = [1_500_000]
    code, out, err = cli("fetch", "ViT-B-16-SigLIP", "--json")
    assert (code, err) == (0, [])
    weights, vocabulary = json.loads(out)["files"]
    digest = f"md5:{hashlib.md5(storage_server.DATA).hexdigest()}"
    row = checkpoints.find("siglip_b16_224")
    assert weights == {
        "file": "the weight file of siglip_b16_224",
        "path": str(tmp_path / "home" / row.file),
        "bytes": len(storage_server.DATA),
        "digest": digest,
    }
    assert vocabulary["path"] == str(tmp_path / "home" / "c4_en.model")
    assert len(online.ranges) == 3  # the weights in two parts
    # Again, nothing is asked for; and where they are, load finds them.
    code, out, _ = cli("fetch", "siglip_b16_224")
    assert code == 0 and len(online.ranges) == 3
    assert "the vocabulary c4_en" in out and "none stated" in out
    assert fetch.fetch_model("siglip_b16_224", list).path == tmp_path / "home" / row.file


def test_damage_is_one_line(cli, online, tmp_path):
    online.data = b"x" + storage_server.DATA[1:]
    code, out, err = cli("fetch", "siglip_b16_224")
    assert (code, out) == (2, "")
    (line,) = err
    assert "nor download them (its md5 is " in line and "and the vocabulary c4_en" in line
    assert list((tmp_path / "home").iterdir()) == []


def test_a_vocabulary_that_is_not_the_released_one(cli, online, tmp_path, monkeypatch):
    """Whatever the server says of it: the table has its digest."""
    c4 = checkpoints.VOCABULARIES["c4_en"]
    right = hashlib.sha256(storage_server.DATA).hexdigest()
    for digest, code in (("0" * 64, 2), (right, 0)):
        stated = {"c4_en": dataclasses.replace(c4, sha256=digest)}
        monkeypatch.setattr(checkpoints, "VOCABULARIES", checkpoints.VOCABULARIES | stated)
        got, out, err = cli("fetch", "siglip_b16_224")
        assert got == code
        assert (tmp_path / "home" / "c4_en.model").exists() == (code == 0)
        if code:
            assert f"its sha256 is {right}, not {digest} as our table of released files" in err[0]
    assert f"sha256:{right[:9]}" in out
    # One that was damaged since, or that somebody put there.
    (tmp_path / "home" / "c4_en.model").write_bytes(b"x")
    code, _, err = cli("fetch", "siglip_b16_224")
    assert code == 2 and "c4_en.model was damaged: its sha256 is" in err[0]
    assert cli("fetch", "siglip_b16_224")[0] == 0


def test_offline_one_line_names_weights_and_vocabulary(cli, tmp_path):
    Image.new("RGB", (8, 8)).save("a.png")
    for argv in (["fetch"], ["score", "a.png", "--labels", "a", "--model"]):
        code, out, err = cli(*argv, "siglip_b16_224")
        assert (code, out) == (2, "")
        (line,) = err
        for name in ("siglip_b16_224 and the vocabulary c4_en", "home/c4_en.model", "-jax fetch"):
            assert name in line


def test_what_is_bundled_or_here_is_listed(cli):
    code, out, _ = cli("fetch", "siglip_emoji")
    assert code == 0 and "siglip_emoji.npz" in out and "tokenizer.model" in out


def test_a_family_is_no_name(cli):
    code, _, err = cli("fetch", "siglip2")
    assert code == 2
    (line,) = err
    assert line.endswith("did you mean siglip2_b32_256, siglip2_b16_224, siglip2_b16_256?")


def test_an_empty_file_is_no_model(cli, tmp_path):
    (tmp_path / "empty.npz").touch()
    code, out, err = cli("fetch", str(tmp_path / "empty.npz"))
    assert (code, out) == (2, "") and err[0].endswith("is empty; remove it, and fetch it again")
