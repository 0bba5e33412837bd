"""What a ledger costs, counted: reports, looks and starts, however much is done."""

import builtins
import json
import os

import pytest
from job_inputs import pictures
from saved_model import saved

import siglip_jax
from siglip_jax.jobs import checked, embed, worker
from siglip_jax.jobs.checked import damage
from siglip_jax.jobs.ledger import Ledger

pytestmark = pytest.mark.usefixtures("compiled_once")
SHARDS = 500


@pytest.fixture
def many(tmp_path):
    """The folder of a job that is not finished, with the entries of many shards."""
    (tmp_path / "ledger").mkdir()
    (tmp_path / "data").mkdir()
    for shard in range(SHARDS):
        file = {"path": f"data/{shard:05d}.parquet", "bytes": 3, "sha256": "0" * 64}
        (tmp_path / file["path"]).write_bytes(b"abc")
        entry = {"shard": shard, "name": "n", "rows": 10, "errors": 0, "reasons": []}
        text = json.dumps({**entry, "files": [file]})
        (tmp_path / f"ledger/{shard:05d}.json").write_text(text)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The names of what the system was asked for: listings, and files that were opened."""
    made = []

    def counted(module, name):
        function = getattr(module, name)

        def call(*arguments, **options):
            made.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for name in ("scandir", "listdir", "stat"):
        counted(os, name)
    for module in (builtins, __import__("io")):
        counted(module, "open")
    counted(checked, "sha256")
    return made


def test_a_report_asks_for_nothing(many, calls):
    ledger = Ledger(many)
    entries = ledger.entries()
    assert len(entries) == SHARDS and calls.count("open") == SHARDS and calls.count("scandir") == 1
    calls.clear()
    assert [ledger.rows for _ in range(1000)] == [10 * SHARDS] * 1000
    assert calls == []
    ledger.write(SHARDS, "n", 7, [], [])
    ledger.forget(0)
    assert ledger.rows == 10 * SHARDS + 7 - 10


def test_a_look_reads_what_is_new(many, calls):
    ledger, other = Ledger(many), Ledger(many)
    ledger.look()
    other.write(SHARDS, "n", 7, [], [])
    calls.clear()
    ledger.look()
    assert (calls.count("scandir"), calls.count("open")) == (1, 1)
    assert ledger.rows == 10 * SHARDS + 7


def test_a_start_reads_no_file_that_is_older_than_its_entry(many, calls):
    entries = Ledger(many).entries()
    calls.clear()
    assert list(damage(many, entries.values(), begun=True)) == []
    assert calls.count("sha256") == 0
    # What was changed behind it is read, and what is gone or shorter needs not be.
    (many / "data/00003.parquet").write_bytes(b"abd")
    later = (many / "ledger/00003.json").stat().st_mtime_ns + 1
    os.utime(many / "data/00003.parquet", ns=(later, later))
    (many / "data/00004.parquet").write_bytes(b"ab")
    (many / "data/00005.parquet").unlink()
    calls.clear()
    found = [(one.shard, one.problem) for one in damage(many, entries.values(), begun=True)]
    assert found == [
        (3, "has other contents than the job wrote"),
        (4, "has 2 bytes, the job wrote 3"),
        (5, "is missing, the job wrote 3 bytes"),
    ]
    assert calls.count("sha256") == 1


def test_a_job_that_is_alone_does_not_look(tmp_path, monkeypatch):
    model = siglip_jax.load(saved(tmp_path / "m"))
    looks = []
    look = Ledger.look
    monkeypatch.setattr(worker, "_LOOKS", 0.0)
    monkeypatch.setattr(worker, "_REPORTS", 0.0)
    monkeypatch.setattr(Ledger, "look", lambda self: looks.append(1) or look(self))
    told = []
    embed(pictures(24), tmp_path / "alone", model=model, report=told.append)
    alone = len(looks)
    assert told[-1].done == 24 and len(told) > 10 > alone
    looks.clear()
    monkeypatch.setattr(worker, "_SHARE", 0)
    embed(pictures(24), tmp_path / "shared", model=model, report=told.append, shared=True)
    assert len(looks) > alone
