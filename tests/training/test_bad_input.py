"""What can go wrong in a run: one clear line each, and nothing lost."""

import errno
import json
import math
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pyarrow
import pyarrow.parquet
import pytest
import shapes
from jax.sharding import NamedSharding, PartitionSpec

from siglip_jax.data import Batches
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training import Diverged, loop
from siglip_jax.training.checkpoints import Checkpoints
from siglip_jax.training.embeddings import embed_captions
from siglip_jax.training.journal import Journal

pytestmark = pytest.mark.usefixtures("compiled_once")
# Constants of a run are part of its programs: tests that change none share them.
FAST = {"steps": 12, "optimizer": {"lr": 3e-3, "warmup": 4}, "save": {"every": 5}}


@pytest.fixture
def table(data):
    return shapes.recipe(data, **FAST)


def run(folder, table, devices=1, **options):
    return shapes.trained(folder, table, mesh=make_mesh(jax.devices()[:devices]), **options)


def rewritten(data, folder, change):
    """A copy of the dataset, its rows changed."""
    rows = pyarrow.parquet.read_table(data / "shapes.parquet").to_pylist()
    change(rows)
    path = folder / "changed.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return {"train": str(path)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 20}, r"batch=20 does not divide into accumulate=1 parts over 8 .* does is 24$"),
        ({"accumulate": 2}, r"accumulate=2 parts over 8 devices; the next that does is 32$"),
        ({"data": {"train": "shaeps.parquet"}}, "shaeps.parquet: no such file"),
        ({"evaluate": {"data": "x.parquet"}}, "x.parquet: no such file"),
    ],
)
def test_nothing_is_begun_that_cannot_be(tmp_path, table, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, table | change, devices=8)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_missing_captions(tmp_path, table, data):
    def change(rows):
        rows[3]["captions"], rows[5]["captions"] = [], ["  "]

    table |= {"data": rewritten(data, tmp_path, change)}
    with pytest.raises(ValueError, match=r"2 of 48 pairs have no caption: red bar 0, red ring"):
        run(tmp_path, table)
    assert not (tmp_path / "run").exists()


def test_a_pattern_that_fits_nothing_and_its_mended_recipe(tmp_path, table):
    rules = [{"pattern": "image/.*", "frozen": True}]
    with pytest.raises(ValueError, match=r"'image/\.\*' fits no parameter") as caught:
        run(tmp_path, table | {"parameters": rules})
    assert re.search(r"such as img/\S+$", str(caught.value))
    # The same folder takes the recipe once it is right.
    assert run(tmp_path, table).finished


def test_unreadable_pictures_are_replaced_and_counted(tmp_path, table, data):
    def change(rows):
        rows[3]["image"] = b"no picture"

    table |= {"data": rewritten(data, tmp_path, change) | {"max_error_share": 0.2}}
    with pytest.warns(UserWarning, match="times another image was taken") as told:
        assert run(tmp_path, table).finished
    (line,) = [str(one.message) for one in told]
    assert "of 1 such images the first is red bar 0: image bytes: not an image" in line
    # Twelve batches of 24 are six times all of the 48; what is drawn instead may be the same.
    times = int(line.split()[0])
    assert times >= 6
    saved = (tmp_path / "run/checkpoints/12/data/metadata").read_text()
    assert json.loads(saved)["unreadable"] == times


def test_too_many_unreadable_pictures(tmp_path, table, data):
    def change(rows):
        for row in rows[::4]:
            row["image"] = b"no picture"

    table |= {"data": rewritten(data, tmp_path, change) | {"max_error_share": 0.1}}
    with pytest.raises(
        ValueError,
        match=r"more than the share of 0\.1 that may be.*a larger max_error_share allows more$",
    ) as caught:
        run(tmp_path, table)
    assert "the first is " in str(caught.value) and "\n" not in str(caught.value)


def test_long_captions_are_told_of_once(tmp_path, table, monkeypatch):
    text = table["model"]["text"] | {"length": 8}
    table |= {"model": table["model"] | {"text": text}}

    class Begun(Exception):
        pass

    def begin(run, recipe, folder, mesh, start, pairs, report):
        # Neither batches nor evaluations say it again: a warning here would be an error.
        with Batches(pairs, start.tokenizer, start.profile, batch=48, seed=0) as batches:
            assert next(batches).text.shape == (48, 8)
        towers = SimpleNamespace(
            model=start.model,
            mesh=mesh,
            texts=lambda params, ids: ids.astype(float),
            batch_sharding=NamedSharding(mesh, PartitionSpec()),
        )
        _, owners = embed_captions(towers, None, pairs, start.tokenizer, batch=16)
        assert owners.tolist() == list(range(48))
        raise Begun

    monkeypatch.setattr(loop._Run, "__init__", begin)
    warned = pytest.warns(UserWarning, match="19 of 48 texts are longer than 8 tokens")
    with warned as told, pytest.raises(Begun):
        run(tmp_path, table)
    assert len(told) == 1


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(tmp_path, table):
    table |= {"optimizer": {"lr": 1e9, "warmup": 6}, "save": {"every": 1}}
    with pytest.raises(Diverged) as caught:
        run(tmp_path, table)
    said = re.fullmatch(
        r"step (\d+): the loss is (\S+), its gradient's norm (\S+), the temperature (\S+); "
        r"the checkpoint of step (\d+) is from before; lower optimizer.lr or lengthen "
        r"optimizer.warmup",
        str(caught.value),
    )
    step, *values, last = said.groups()
    assert not all(math.isfinite(float(value)) for value in values)
    # The first step of a warm-up changes nothing, the second all.
    assert (int(step), int(last)) == (2, 1)
    assert shapes.journal(tmp_path / "run")[-1]["step"] == 1
    # It is whole, and nothing in it is lost: the same run goes on from it, to the same end.
    with pytest.raises(Diverged, match=r"^step 2: "):
        run(tmp_path, table)


def test_without_a_checkpoint_there_is_none_to_name(tmp_path, table):
    table |= {"optimizer": {"lr": 1e9, "warmup": 6}}
    with pytest.raises(Diverged, match="there was no checkpoint yet"):
        run(tmp_path, table)


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


def state(value):
    return {"a": jnp.full(150_000, value)}


# Several of orbax's writers meet the full disk: one says so, and an error of another may be
# thrown away with it, about which Python warns whichever test runs then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_keeps_the_last_whole_checkpoint(small_disk):
    checkpoints = Checkpoints(small_disk, keep=1)
    checkpoints.save(5, state(5.0), {"at": 5})
    checkpoints.wait()
    # Random numbers, which no compression makes room for.
    large = {"a": jax.random.normal(jax.random.key(0), (150_000,))}
    with pytest.raises(OSError, match="No space left on device") as caught:
        for step in (10, 15, 20):
            checkpoints.save(step, large, {"at": step})
        checkpoints.wait()
    said = re.fullmatch(
        r"(\S+): the checkpoint of step (\d+) could not be written: No space left on device; "
        r"the last whole one is step (\d+)",
        str(caught.value),
    )
    assert said[1] == str(small_disk) and int(said[2]) == int(said[3]) + 5
    checkpoints.close()  # says nothing more

    again = Checkpoints(small_disk, keep=1)
    assert again.latest == int(said[3])
    assert again.restore(state(0.0))[1] == {"at": again.latest}
    again.close()


def test_an_error_of_the_disk_in_one_line_wherever_it_comes_from(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)

    def full(*_, **__):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "deep/inside")
        except OSError as error:
            raise RuntimeError("a thread has failed") from error

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match=r"could not be written: No space left.*there is none yet$"):
        checkpoints.save(3, state(1.0), {})
    monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is not the disk's
        checkpoints.save(4, state(1.0), {})
    checkpoints.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_journal_on_a_full_disk(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    journal = Journal.__new__(Journal)
    journal._path, journal._others = tmp_path / "metrics.jsonl", []
    journal._file = journal._path.open("a", buffering=1)
    with pytest.raises(OSError, match=r"metrics.jsonl: cannot be written: No space left on device"):
        journal.write(1, {"loss": 1.0})
    journal.close()
