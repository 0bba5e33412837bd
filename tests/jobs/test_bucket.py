"""Jobs whose output is in a bucket, in memory here: as on a disk, and who may write to it."""

import json
import re

import command_line
import fsspec
import numpy as np
import pytest
from job_inputs import contents, picture, pictures
from saved_model import saved

import siglip_jax
from siglip_jax.jobs import bucket, bucket_ledger, embed, open_features, read_manifest, score
from siglip_jax.jobs.bucket import BucketPath, Changed
from siglip_jax.jobs.bucket_ledger import BucketLedger
from siglip_jax.jobs.ledger import read_entries
from siglip_jax.jobs.part import Part
from siglip_jax.search import open_embeddings

cli = command_line.cli
pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def out():
    """The URL of a prefix with nothing in it."""
    yield "memory://jobs/out"
    memory = fsspec.filesystem("memory")
    if memory.exists("/jobs"):
        memory.rm("/jobs", recursive=True)


def objects(out):
    """What there is below a URL, by name."""
    fs, path = fsspec.core.url_to_fs(out)
    return {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in fs.find(path)}


def same(out, folder):
    """Whether a bucket has what a folder has: each file, and each entry of the ledger."""
    there, here = objects(out), contents(folder)
    files = {name for name in here if not name.startswith(("ledger/", "."))}
    assert files == {n for n in there if not n.startswith(("ledger/", "summary.json"))}
    assert all(there[name] == here[name] for name in files)
    assert read_entries(BucketPath(out)) == read_entries(folder)


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_a_bucket_has_what_a_folder_has(model, out, tmp_path, format):
    source = pictures(11)
    result = embed(source, out, model=model, format=format)
    assert (result.finished, result.items, result.code) == (True, 11, 0)
    embed(source, tmp_path / "out", model=model, format=format)
    same(out, tmp_path / "out")
    assert list(name for name in objects(out) if "ledger" in name) == ["ledger/00000-00002.json"]
    there, here = open_embeddings(out), open_embeddings(tmp_path / "out")
    places = [0, 5, 10]
    assert there.rows(places) == here.rows(places)
    assert np.array_equal(there.vectors(places), here.vectors(places))
    pairs = zip(there.chunks(4), here.chunks(4), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    again = embed(source, out, model=model, format=format)
    assert again.already and again.sentence().startswith(f"{out} is finished already: 11 items")
    assert json.loads(objects(out)["summary.json"])["items"] == 11


def test_scores_and_patches(model, out, tmp_path):
    options = {"model": model, "labels": ["a", "b", "c"], "top": 2}
    score(pictures(5), f"{out}/scores", **options)
    score(pictures(5), tmp_path / "scores", **options)
    same(f"{out}/scores", tmp_path / "scores")
    embed(pictures(5), f"{out}/patches", model=model, layer=-1)
    embed(pictures(5), tmp_path / "patches", model=model, layer=-1)
    same(f"{out}/patches", tmp_path / "patches")
    there, here = open_features(f"{out}/patches"), open_features(tmp_path / "patches")
    assert all(np.array_equal(a, b) for a, b in zip(there, here, strict=True))
    embed(pictures(5), f"{out}/npy", model=model, layer=-1, format="npy")
    with pytest.raises(ValueError, match=r"npy is in \.npy, which is read from a disk only"):
        open_features(f"{out}/npy")


@pytest.mark.parametrize("count", [3, 9])
def test_parts_make_the_whole(model, out, tmp_path, count, monkeypatch):
    source = pictures(27)
    for number in range(1, count + 1):
        result = embed(source, out, model=model, part=f"{number}/{count}")
        last = number == count
        assert (result.finished, result.part_done, result.code) == (last, True, 0)
        if not last:
            assert f"part {number} of {count} is done; of all parts" in result.sentence()
    assert "part" not in json.loads(objects(out)["summary.json"]) or result.part == (count, count)
    embed(source, tmp_path / "out", model=model)
    same(out, tmp_path / "out")
    # As one process would have left it.
    assert [n for n in objects(out) if n.startswith("ledger")] == ["ledger/00000-00006.json"]
    assert embed(source, out, model=model, part=(1, count)).already


def test_parts_of_a_folder(model, tmp_path):
    for number in (2, 1):
        result = embed(pictures(11), tmp_path / "parts", model=model, part=(number, 2))
        assert result.code == 0 and result.finished == (number == 1)
    embed(pictures(11), tmp_path / "whole", model=model)
    parts, whole = contents(tmp_path / "parts"), contents(tmp_path / "whole")
    assert parts == whole


def test_a_part_with_nothing_to_do(model, out):
    result = embed(pictures(4), out, model=model, part="1/2")
    assert (result.code, result.finished, result.part_done, result.items) == (0, False, True, 0)
    again = embed(pictures(4), out, model=model, part="2/2")
    assert (again.code, again.finished, again.items) == (0, True, 4)


def test_another_job_is_refused(model, out):
    embed(pictures(4), out, model=model)
    with pytest.raises(ValueError, match=r"memory://jobs/out holds another job: job.store is"):
        embed(pictures(4), out, model=model, store="float16")
    with pytest.raises(ValueError, match="holds another job: the data have changed"):
        embed(pictures(5), out, model=model)
    BucketPath("memory://jobs/other/a.txt").write_bytes(b"mine")
    with pytest.raises(ValueError, match="other is not empty and holds no job; choose another"):
        embed(pictures(4), "memory://jobs/other", model=model)
    assert objects("memory://jobs/other") == {"a.txt": b"mine"}


@pytest.mark.parametrize(
    ("where", "options", "said"),
    [
        ("https://host/out", {}, "a job cannot write to https://; give a folder, gs://"),
        ("nowhere://b/out", {}, "cannot write to nowhere://"),
        ("memory://jobs/out", {"update": True}, "in a bucket; update is for a folder on a disk"),
        ("memory://jobs/out", {"shared": True}, "divide the work with part in place of shared"),
        ("memory://jobs/out", {"part": "1/2", "shared": True}, "leave out shared"),
        ("memory://jobs/out", {"part": "1/2", "retry": True}, "retry is for one process alone"),
        ("memory://jobs/out", {"part": "3/2"}, "expected one of so many parts of a job, such as"),
        ("memory://jobs/out", {"part": "a"}, "got 'a'"),
    ],
)
def test_what_cannot_be(model, out, where, options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        embed(pictures(4), where, model=model, **options)
    assert objects("memory://jobs/out") == {}


def test_a_missing_package_is_named(model, monkeypatch):
    def missing(where, **options):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(
        ValueError, match=r"^gs://b/out: gs:// needs another package; pip install gcsfs$"
    ):
        embed(pictures(4), "gs://b/out", model=model)


def test_the_command(cli, model, out, tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(5):
        (tmp_path / f"in/{n}.png").write_bytes(picture(n))
    base = ["embed", tmp_path / "in", "--model", model.vocabulary.parent, "--shard-size", "2"]
    code, said, err = cli(*base, "--out", out, "--part", "2/2")
    assert (code, err) == (0, []), err
    assert said.startswith(f"{out}: part 2 of 2 is done; of all parts 2 of 3 shards are (3 items i")
    code, said, _ = cli(*base, "--out", out, "--part", "1/2", "--json")
    told = json.loads(said)
    assert (code, told["folder"], told["finished"], told["part"]) == (0, out, True, [1, 2])
    code, said, _ = cli("check", out)
    assert (code, said) == (0, f"{out}: 3 of 3 files are as the job wrote them\n")
    BucketPath(f"{out}/data/00001.parquet").write_bytes(b"")
    code, said, err = cli("check", out)
    assert code == 2 and "has 0 bytes, the job wrote" in err[0]
    assert err[0].endswith("remove it if it is there, and the job's command with --retry mends it")
    for more, words in (
        (["--out", out, "--part", "3/2"], "expected one of so many parts of a job, such as 1/8"),
        (["--out", out, "--update"], "is in a bucket; --update is for a folder on a disk"),
        (["--out", out, "--shared"], "divide the work with --part in place of shared"),
        (["--out", f"{out}/x.npz"], "FILE.npz is written to a disk; give a path"),
        (["--out", "ftp://host/out"], "ftp://host/out: a job cannot write to ftp://"),
    ):
        code, said, err = cli(*base, *more)
        assert (code, said) == (2, "") and words in err[-1], err


def ledger(out, shards=600, own=None):
    return BucketLedger(BucketPath(out), shards, own)


def done(ledger, *shards):
    for shard in shards:
        ledger.write(shard, str(shard), 3, [("a", "bad")], [], passing=1)


def test_a_ledger_in_few_objects(out):
    a = ledger(out)
    done(a, 0, 1, 255, 256, 599)
    assert sorted(objects(out)) == [
        "ledger/00000-00255.json",
        "ledger/00256-00511.json",
        "ledger/00512-00599.json",
    ]
    b = ledger(out)
    assert list(b.entries()) == [0, 1, 255, 256, 599] and b.rows == 15 and b.done(599)
    b.forget(1)
    b.flush()
    assert list(ledger(out).entries()) == [0, 255, 256, 599] and b.rows == 12
    assert read_entries(BucketPath(out)) == list(b.entries().values())
    BucketPath(f"{out}/ledger/00256-00511.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"00256-00511\.json: not a part of a ledger .*; remove"):
        ledger(out)


def test_a_ledger_divided_otherwise(out):
    """Entries of an earlier division stay, and the last of all leaves one form."""
    for number in (1, 2, 3):
        own = Part(number, 3).shards(600)
        done(ledger(out, own=own), own.start, own.stop - 1)
    whole = ledger(out)
    expected = [0, 199, 200, 399, 400, 599]
    assert list(whole.entries()) == expected
    second = ledger(out, own=range(300, 600))
    assert second.rows == 9
    done(second, 300)
    whole = ledger(out)
    whole.compact()
    assert sorted(objects(out)) == [
        "ledger/00000-00255.json",
        "ledger/00256-00511.json",
        "ledger/00512-00599.json",
    ]
    assert list(ledger(out).entries()) == sorted([*expected, 300])
    done(whole, 1)


def test_two_processes_with_the_same_shards(out):
    a, b = ledger(out), ledger(out)
    done(a, 0)
    # The same is no quarrel: the answer to a put may have been lost.
    done(b, 0)
    done(a, 1)
    with pytest.raises(ValueError, match=r"out: another process does the same shards; .*part"):
        done(b, 2)
    done(a, 2)
    assert list(ledger(out).entries()) == [0, 1, 2]


def test_a_manifest_is_the_first_ones(model, out, monkeypatch):
    """Of two jobs that begin at the same moment one is refused."""
    begun = bucket.BucketPath.replace_with

    def late(self, data, before):
        if self.name == "manifest.json":
            monkeypatch.undo()
            embed(pictures(4), out, model=model, store="float16")
        return begun(self, data, before)

    monkeypatch.setattr(bucket.BucketPath, "replace_with", late)
    with pytest.raises(ValueError, match=r"holds another job: job\.store is 'float16' there"):
        embed(pictures(4), out, model=model)
    assert read_manifest(BucketPath(out)).job["store"] == "float16"


def test_an_object_is_replaced_only_if_it_is_known(out):
    file = BucketPath(f"{out}/a")
    first = file.replace_with(b"1", None)
    assert file.replace_with(b"1", None).data == b"1"
    second = file.replace_with(b"2", first)
    with pytest.raises(Changed):
        file.replace_with(b"3", first)
    with pytest.raises(Changed):
        file.replace_with(b"3", None)
    assert file.replace_with(b"3", second).data == file.read_bytes() == b"3"
    file.unlink()
    with pytest.raises(Changed):
        file.replace_with(b"4", second)
    with pytest.raises(FileNotFoundError):
        file.unlink()


def test_a_ledger_of_a_hundred_thousand_shards_is_few_objects(out, monkeypatch):
    """A start lists at most 1,000 objects, once; a shard costs one put, however many are done."""
    shards, parts = 100_000, 64
    about = {"files": [{"path": "data/00000.parquet", "bytes": 1, "sha256": "0" * 64}]}
    plain = ("name", 2048, 0, [], about["files"], None, 0)
    for number in range(1, parts + 1):
        own = Part(number, parts).shards(shards)
        for block in bucket_ledger.blocks(own):
            entries = [bucket_ledger.Entry(shard, *plain) for shard in block]
            name = bucket_ledger.block_name(block)
            path = BucketPath(f"{out}/ledger/{name}")
            path.write_bytes(bucket_ledger.block_bytes(entries[: 1 if number == 1 else None]))
    asked = []
    for name in ("ls", "cat", "cat_file", "pipe_file", "find", "info"):
        monkeypatch.setattr(
            fsspec.implementations.memory.MemoryFileSystem,
            name,
            counting(asked, name, getattr(fsspec.implementations.memory.MemoryFileSystem, name)),
        )
    opened = ledger(out, shards, Part(1, parts).shards(shards))
    assert len(opened.entries()) > 90_000
    assert asked.count("ls") == 2
    listed = [n for n in objects(out) if n.startswith("ledger/")]
    assert len(listed) <= 1000
    asked.clear()
    done(opened, 5, 6, 7)
    assert asked.count("pipe_file") == 3 and asked.count("ls") == 0
    assert opened.rows == 2048 * 7 + 9


def counting(asked, name, function):
    def call(*arguments, **options):
        asked.append(name)
        return function(*arguments, **options)

    return call


def test_damage_is_found_by_check_and_mended_by_retry(model, out, tmp_path):
    source = pictures(11)
    embed(source, out, model=model)
    before = objects(out)
    BucketPath(f"{out}/data/00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"00001\.parquet is missing; siglip-jax check says"):
        list(open_embeddings(out).chunks(8))
    assert embed(source, out, model=model).already
    assert embed(source, out, model=model, retry=True).run["items"] == 4
    now = objects(out)
    assert {**before, "summary.json": b""} == {**now, "summary.json": b""}
    path = BucketPath(f"{out}/data/00002.parquet")
    path.write_bytes(bytes(reversed(path.read_bytes())))
    with pytest.raises(ValueError, match=r"00002\.parquet has other contents than the job wrote"):
        list(open_embeddings(out).chunks(8))
