"""Jobs that write to a real S3 server: killed, throttled, refused, and gone on with."""

import logging
import os
import random
import re
import signal
import socket
import time

import pytest
import s3_server
from job_inputs import contents, picture, started
from s3_server import EXPIRED, INTERNAL, SLOW_DOWN
from saved_model import saved

import siglip_jax
from siglip_jax.data import failures
from siglip_jax.jobs import bucket, embed
from siglip_jax.jobs.bucket import BucketPath
from siglip_jax.jobs.ledger import read_entries
from siglip_jax.search import open_embeddings

pytestmark = pytest.mark.usefixtures("compiled_once")
SHARDS, SIZE = 7, 3
PAUSES = bucket.PAUSES, failures.PAUSES


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server.serving() as server:
        yield server


@pytest.fixture(autouse=True)
def quiet(server, monkeypatch):
    server.quiet()
    for module in (bucket, failures):
        monkeypatch.setattr(module, "PAUSES", (0.1, 0.1, 0.1))
    yield
    server.quiet()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures, one of them bad."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(SHARDS * SIZE - 1):
        (folder / f"{i:03d}.png").write_bytes(b"hello" if i == 5 else picture(i, 20 + i))
    return str(folder)


def run(photos, out, model, **options):
    return embed(photos, out, model=model, shard_size=SIZE, max_error_share=0.5, **options)


@pytest.fixture(scope="module")
def whole(photos, model, tmp_path_factory):
    """What a job writes that is left alone, to a folder."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert run(photos, folder, model).code == 0
    return folder


def same(out, whole):
    import s3fs

    fs = s3fs.S3FileSystem(use_listings_cache=False)
    path = out.removeprefix("s3://")
    there = {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in fs.find(path)}
    files = {n: data for n, data in contents(whole).items() if not n.startswith(("ledger", "."))}
    assert files == {n: data for n, data in there.items() if n in files}
    assert set(there) - set(files) == {"summary.json", "ledger/00000-00006.json"}
    assert read_entries(BucketPath(out)) == read_entries(whole)
    assert len(open_embeddings(out)) == SHARDS * SIZE - 1


def test_a_bucket_has_what_a_folder_has(server, photos, model, whole):
    assert run(photos, "s3://bucket/plain", model).finished
    same("s3://bucket/plain", whole)
    # Each in one put: the manifest, the shards, the ledger after each, the summary.
    assert server.count("PUT", r"/plain/") == 1 + SHARDS + SHARDS + 1
    assert server.count("POST", "") == 0
    server.quiet()
    assert run(photos, "s3://bucket/plain", model).already
    assert server.count("PUT", "") == 0


def test_parts_make_the_whole(photos, model, whole):
    for number in (2, 1, 3):
        assert run(photos, "s3://bucket/parts", model, part=(number, 3)).code == 0
    same("s3://bucket/parts", whole)


def asked_for(pattern):
    return lambda method, path: bool(re.search(pattern, f"{method} {path}"))


@pytest.mark.parametrize(
    ("name", "told", "matches"),
    [
        ("throttled", SLOW_DOWN, ""),
        ("failing", INTERNAL, ""),
        ("throttled-ledger", SLOW_DOWN, "PUT .*/ledger/"),
        ("failing-shard", INTERNAL, "PUT .*/data/00003"),
    ],
)
def test_a_store_that_fails_for_a_while(server, photos, model, whole, name, told, matches):
    server.fault = s3_server.times(3, told, asked_for(matches))
    assert run(photos, f"s3://bucket/{name}", model).finished
    same(f"s3://bucket/{name}", whole)


def test_a_put_whose_answer_is_lost(server, photos, model, whole):
    """The second try meets what the first has written, and the ledger has no other writer."""
    server.lost = s3_server.times(3, INTERNAL, asked_for("PUT .*/(ledger|manifest)"))
    assert run(photos, "s3://bucket/lost", model).finished
    same("s3://bucket/lost", whole)


def test_a_store_that_answers_slowly(server, photos, model, whole):
    server.fault = lambda method, path: time.sleep(0.1)
    assert run(photos, "s3://bucket/slow", model).finished
    same("s3://bucket/slow", whole)


@pytest.mark.slow
def test_a_minute_of_503_in_the_middle(server, photos, model, whole, monkeypatch):
    """With the job's own patience: it is ridden out, with one run."""
    for module, pauses in zip((bucket, failures), PAUSES, strict=True):
        monkeypatch.setattr(module, "PAUSES", pauses)
    begun = []

    def fault(method, path):
        if begun or asked_for("PUT .*/data/00002")(method, path):
            begun.append(time.monotonic())
            return SLOW_DOWN if begun[-1] - begun[0] < 60 else None
        return None

    server.fault = fault
    assert run(photos, "s3://bucket/minute", model).finished
    assert begun[-1] - begun[0] > 60
    server.quiet()
    same("s3://bucket/minute", whole)


def test_a_login_that_expires_in_the_middle(server, photos, model, whole):
    begun = asked_for("PUT .*/data/00003")

    def expired(method, path, there=[]):  # noqa: B006 - from its first call on
        there.extend([1] * begun(method, path))
        return EXPIRED if there else None

    server.fault = expired
    with pytest.raises(
        ValueError,
        match=r"^s3://bucket/expired/data/00003\.parquet: the login has expired; renew it: aws "
        r"configure, or AWS_.*; what is finished is kept, and the same command goes on behind it$",
    ):
        run(photos, "s3://bucket/expired", model)
    server.quiet()
    result = run(photos, "s3://bucket/expired", model)
    assert result.run["items"] == SHARDS * SIZE - 1 - 3 * SIZE
    same("s3://bucket/expired", whole)


def test_a_store_that_stays_away(server, photos, model, whole):
    server.fault = s3_server.times(10**6, INTERNAL, asked_for("PUT .*/data/00002"))
    with pytest.raises(
        ValueError,
        match=r"00002\.parquet: cannot be reached after 4 tries: .*internal error.*goes on behind",
    ):
        run(photos, "s3://bucket/away", model)
    server.quiet()
    # What waited to be written behind it may be done.
    assert SIZE <= run(photos, "s3://bucket/away", model).run["items"] <= 5 * SIZE - 1
    same("s3://bucket/away", whole)


def test_two_jobs_at_a_time(server, photos, model, whole):
    """While one writes, another begins and is refused; what the first makes is whole."""
    refused = []

    def second(method, path):
        if asked_for("PUT .*/two/data/00003")(method, path) and not refused:
            refused.append(None)
            # It has the first three already, does the others, and the first finds that.
            assert run(photos, "s3://bucket/two", model).finished
        return None

    server.fault = second
    with pytest.raises(ValueError, match="s3://bucket/two: another process does the same shards"):
        run(photos, "s3://bucket/two", model)
    same("s3://bucket/two", whole)


def test_a_bucket_that_does_not_exist(photos, model):
    with pytest.raises(ValueError, match=r"^s3://none/out: there is no bucket s3://none$"):
        run(photos, "s3://none/out", model)
    with pytest.raises(ValueError, match="holds no output of a job"):
        open_embeddings("s3://none/out")


def start(tmp_path, photos, model, out, **env):
    environment = os.environ | {
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return started(
        *("job_worker.py", "embed", photos, "--out", out, "--model", model),
        *("--shard-size", str(SIZE), "--max-error-share", "0.5"),
        env=environment | {name: str(value) for name, value in env.items()},
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def command(*arguments, **env):
    return finish(start(*arguments, **env))


@pytest.mark.slow
def test_killed_ten_times(server, photos, model, tmp_path):
    """At any put or read of the store; and a store that is slow and fails now and then."""
    rng = random.Random(0)
    name = str(model.vocabulary.parent)
    assert command(tmp_path, photos, name, str(tmp_path / "whole"))[0] == 0
    out = "s3://bucket/killed"
    deaths = 0

    def fails(method, path):
        told = rng.random()
        return SLOW_DOWN if told < 0.02 else INTERNAL if told < 0.04 else None

    server.fault = fails
    for _ in range(10):
        code, _, err = command(tmp_path, photos, name, out, KILL_PUT=rng.randint(1, 9))
        assert code in (0, -signal.SIGKILL), err
        deaths += code == -signal.SIGKILL
    assert deaths >= 5
    server.quiet()
    code, _, err = command(tmp_path, photos, name, out)
    assert code == 0, err
    same(out, tmp_path / "whole")
    code, _, err = command(tmp_path, photos, name, "s3://none/out")
    assert (code, err) == (2, "siglip-jax: error: s3://none/out: there is no bucket s3://none\n")


@pytest.mark.slow
def test_under_jax_distributed(photos, model, tmp_path):
    """Each process has a part, and the last one finds that all is done."""
    name = str(model.vocabulary.parent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": 2}
    pair = [
        start(tmp_path, photos, name, "s3://bucket/pod", JAX_PROCESS_ID=rank, **environment)
        for rank in range(2)
    ]
    said = [finish(process) for process in pair]
    assert [code for code, _, _ in said] == [0, 0], said
    assert command(tmp_path, photos, name, str(tmp_path / "whole"))[0] == 0
    same("s3://bucket/pod", tmp_path / "whole")
