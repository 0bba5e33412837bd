"""A job's folder: who may write to it, and what happens when it is full."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess

import numpy as np
import pytest
from job_inputs import Told, contents, picture, pictures
from saved_model import saved

import siglip_jax
from siglip_jax.data.item import Item
from siglip_jax.jobs import DiskFull, embed
from siglip_jax.jobs.claims import Claims
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.space import space_of
from siglip_jax.models import SiglipModel
from siglip_jax.run_folder import locked

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


def test_two_jobs_on_one_folder(model, tmp_path):
    me = f"process {os.getpid()} on {socket.gethostname()}"
    for theirs, ours, named in (
        (False, False, me),
        (False, True, me),
        (True, False, f"{me}, shared with others"),
    ):
        with (
            locked(tmp_path, shared=theirs),
            pytest.raises(ValueError, match=rf"another job is writing to it \({named}\); wait"),
        ):
            embed(pictures(3), tmp_path, model=model, shared=ours)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with locked(tmp_path, shared=True):
        assert embed(pictures(3), tmp_path, model=model, shared=True).finished


def test_a_lock_file_that_says_nothing(model, tmp_path):
    with locked(tmp_path, shared=False):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(ValueError, match="it does not say which"):
            embed(pictures(3), tmp_path, model=model)


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not mount or os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_full_disk(model, small_disk, tmp_path, format):
    # Keys that no compression makes room for: some 100 kB a shard.
    rng = np.random.default_rng(0)
    keys = [rng.bytes(6000).hex() for _ in range(80)]
    source = Told([Item(key, picture(i)) for i, key in enumerate(keys)], 8)
    # What takes up the room now.
    filler = small_disk.parent / "disk/filler"
    filler.write_bytes(bytes(600_000))
    out = small_disk / "out"
    with pytest.raises(
        DiskFull,
        match=r"out/\S+ could not be written: No space left on device; "
        "all finished shards are kept, and the same command goes on once there is",
    ):
        embed(source, out, model=model, format=format)
    done = len(list((out / "ledger").iterdir()))
    assert 0 < done < 10
    filler.unlink()
    shutil.copytree(out, tmp_path / "large")
    again = embed(source, tmp_path / "large", model=model, format=format)
    assert again.finished and again.run["items"] == 80 - 8 * done
    embed(source, tmp_path / "other", model=model, format=format)
    assert contents(tmp_path / "large") == contents(tmp_path / "other")


def test_claims(tmp_path):
    ledger = Ledger(tmp_path)
    a, b = (Claims(tmp_path, ledger, [0, 1, 2], lambda: False, 0.3) for _ in "ab")
    assert (a.next(wait=False), b.next(wait=False), a.next(wait=False)) == (0, 1, 2)
    assert a.next(wait=False) is None and b.next(wait=False) is None
    ledger.write(0, "zero", 0, [], [])
    a.release(0)
    b.release(1)
    # What one gives back the other takes; what is done nobody does.
    assert a.next(wait=True) == 1
    a.close()
    assert list((tmp_path / "claims").iterdir()) == []


def test_the_claims_of_the_dead_are_taken_over_and_those_of_the_living_not(tmp_path):
    ledger = Ledger(tmp_path)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims/00000").write_text("elsewhere 1 abc")
    living = Claims(tmp_path, ledger, [1], lambda: False, 0.6)
    assert living.next(wait=False) == 1
    taker = Claims(tmp_path, ledger, [0, 1], lambda: False, 0.6)
    assert taker.next(wait=False) is None
    assert taker.next(wait=True) == 0
    assert (tmp_path / "claims/00000").read_text() == taker.me
    assert (tmp_path / "claims/00001").read_text() == living.me
    living.close()
    taker.close()


def test_a_damaged_ledger(model, tmp_path):
    embed(pictures(3), tmp_path / "out", model=model)
    (tmp_path / "out/ledger/00000.json").write_text("{")
    with pytest.raises(ValueError, match=r"00000\.json: not an entry of a ledger .*; remove it"):
        embed(pictures(3), tmp_path / "out", model=model)


def test_entries_say_what_files_there_are(model, tmp_path):
    embed(pictures(3), tmp_path / "out", model=model)
    entry = json.loads((tmp_path / "out/ledger/00000.json").read_text())
    (file,) = entry["files"]
    assert file["path"] == "data/00000.parquet"
    assert file["bytes"] == (tmp_path / "out" / file["path"]).stat().st_size


def weights(model):
    return space_of(model)["weights"]


def test_the_digest_of_weights_is_of_no_format(model):
    loop = weights(model)
    assert loop.startswith("tensors-sha256:") and len(loop) == 79
    scanned = siglip_jax.load(
        model.vocabulary.parent, execution=siglip_jax.Execution(scan_image=True, scan_text=True)
    )
    assert isinstance(scanned.model, SiglipModel) and weights(scanned) == loop
    changed = {**model.params, "b": model.params["b"] + 1}
    assert weights(dataclasses.replace(model, params=changed)) != loop


def test_a_job_with_the_digest_of_earlier_versions_goes_on(model, tmp_path):
    embed(pictures(3), tmp_path / "out", model=model)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    old = space_of(model, {"weights": "sha256:"})["weights"]
    assert old.startswith("sha256:") and len(old) == 71
    path.write_text(json.dumps(manifest | {"space": manifest["space"] | {"weights": old}}))
    (tmp_path / "out/ledger/00000.json").unlink()
    assert embed(pictures(3), tmp_path / "out", model=model).items == 3
    changed = {**model.params, "b": model.params["b"] + 1}
    with pytest.raises(ValueError, match="other weights"):
        embed(pictures(3), tmp_path / "out", model=dataclasses.replace(model, params=changed))
