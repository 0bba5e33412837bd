"""TensorBoard and Weights & Biases, where they are installed."""

import json
import sys
import types

import pytest

from siglip_jax.training.journal import Journal, read_journal


@pytest.fixture
def absent(monkeypatch):
    for name in ("tensorboard", "tensorboard.summary", "tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)


class Wandb(types.ModuleType):
    """As much of the package as a run uses."""

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.logged, self.finished = [], [], 0

    def init(self, **options):
        self.begun.append(options)
        return self

    def log(self, values, step):
        self.logged.append((step, dict(values)))

    def finish(self):
        self.finished += 1

    Settings = staticmethod(dict)


def test_neither_is_needed(absent, tmp_path):
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": 0.5, "evaluate/x": float("nan")})
    journal.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert read_journal(tmp_path) == [{"step": 1, "loss": 0.5, "evaluate/x": None}]


def test_weights_and_biases(absent, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    (tmp_path / "recipe.json").write_text(json.dumps({"steps": 2}))
    for _ in range(2):
        journal = Journal(tmp_path, 0)
        journal.write(1, {"loss": 0.5})
        journal.close()
    first, again = wandb.begun
    # Nothing leaves the machine unasked, and after an interruption it is the same run.
    assert first["mode"] == "offline" and first["dir"] == str(tmp_path)
    assert first["config"] == {"steps": 2} and first["id"] == again["id"]
    assert wandb.logged == [(1, {"loss": 0.5})] * 2 and wandb.finished == 2
    monkeypatch.setenv("WANDB_MODE", "online")
    Journal(tmp_path, 0).close()
    assert wandb.begun[-1]["mode"] == "online"


def test_a_logger_that_fails_is_left_alone(absent, tmp_path, monkeypatch):
    wandb = Wandb()

    def fails(values, step):
        raise ConnectionError("no network\nand more")

    wandb.log = fails
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    journal = Journal(tmp_path, 0)
    with pytest.warns(UserWarning, match="^WeightsAndBiases is left out from here on: no network$"):
        journal.write(1, {"loss": 0.5})
    journal.write(2, {"loss": 0.25})
    journal.close()
    assert [line["step"] for line in read_journal(tmp_path)] == [1, 2]


def test_tensorboard(absent, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorboardX")
    pytest.importorskip("tensorboardX", reason="needs: pip install tensorboardX")
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": 0.5, "examples/s": 12.0})
    journal.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"examples/s" in events.read_bytes()


def test_weights_and_biases_itself(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": 0.5})
    journal.close()
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
