"""Files of a job that are damaged after they were written: found, named, done again."""

import json

import command_line
import pytest
from job_inputs import contents, picture
from saved_model import saved

import siglip_jax
from siglip_jax.jobs import checked, embed
from siglip_jax.search import open_embeddings

cli = command_line.cli
pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def index(model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(5):
        (photos / f"{n}.png").write_bytes(picture(n))
    embed(str(photos), tmp_path / "out", model=model, shard_size=2)
    return str(photos), tmp_path / "out"


def zero(path):
    """64 bytes in the middle are zeros, as after a fault of a disk."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)


def test_a_damaged_shard_is_done_again_and_not_searched(model, index):
    photos, out = index
    before = contents(out)
    zero(out / "data/00001.parquet")
    with pytest.raises(
        ValueError, match=r"00001\.parquet has other contents than the job wrote; the job's comm"
    ):
        open_embeddings(out)
    with pytest.warns(UserWarning, match=r"00001\.parquet has other .*; its shard is done again"):
        result = embed(photos, out, model=model, shard_size=2)
    assert result.run["items"] == 2 and contents(out) == before
    assert len(open_embeddings(out)) == 5


def test_what_was_found_right_is_read_once(model, index, monkeypatch):
    photos, out = index
    read = []
    sha256 = checked.sha256
    monkeypatch.setattr(checked, "sha256", lambda path: read.append(path.name) or sha256(path))
    open_embeddings(out)
    assert read == ["00000.parquet", "00001.parquet", "00002.parquet"]
    open_embeddings(out)
    assert embed(photos, out, model=model, shard_size=2).already and len(read) == 3
    (out / "data/00002.parquet").touch()
    open_embeddings(out)
    assert read[3:] == ["00002.parquet"]


def test_the_command(cli, index):
    _, out = index
    code, said, err = cli("check", out)
    assert (code, said, err) == (0, f"{out}: 3 of 3 files are as the job wrote them\n", [])
    # Its time of change is as it was, so that only reading it shows.
    path = out / "data/00001.parquet"
    zero(path)
    (out / "data/00002.parquet").unlink()
    (out / "ledger/00000.json").unlink()
    code, said, err = cli("check", out)
    assert code == 2 and len(err) == 2
    assert said == f"{out}: 0 of 2 files are as the job wrote them; 2 of 3 shards are done\n"
    assert err[0] == (
        f"siglip-jax: error: {path} has other contents than the job wrote; the job's command mends "
        "that"
    )
    code, said, _ = cli("check", out, "--json")
    told = json.loads(said)
    assert code == 2 and [one["problem"][:9] for one in told["damaged"]] == [
        "has other",
        "is missin",
    ]
    (out / "ledger/00001.json").write_text("")
    for argv, words in (
        ((out,), "00001.json: not an entry of a ledger ("),
        ((out.parent,), "holds no output of a job"),
        ((path,), "is a file; expected the folder of a job"),
        ((out, "--jsn"), "did you mean --json?"),
    ):
        code, said, err = cli("check", *argv)
        assert (code, said) == (2, "") and words in err[0], err
