"""Runs that were interrupted end as those that were not, to the last bit."""

import errno
import json
import os
import signal
import threading

import jax
import pytest
import shapes

from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training import loop, recipe_from_dict
from siglip_jax.training.checkpoints import Checkpoints
from siglip_jax.training.claim import claim_folder, held_folder
from siglip_jax.training.journal import Journal, read_journal

pytestmark = pytest.mark.usefixtures("compiled_once")
STEPS = 12


@pytest.fixture(scope="module")
def table(data):
    return shapes.recipe(data, steps=STEPS, optimizer={"lr": 3e-3, "warmup": 4}, save={"every": 5})


def run(folder, table, **options):
    return shapes.trained(folder, table, mesh=make_mesh(jax.devices()[:1]), **options)


class Interrupted(Exception):
    pass


def at(step, do):
    """A `report` that does something once the numbers of a step are there."""

    def report(progress):
        if progress.what == "training" and progress.done == step:
            do()

    return report


def stop():
    raise Interrupted


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, table):
    whole = run(tmp_path, table, run="whole")
    assert (whole.step, whole.finished) == (STEPS, True)

    # Died on the way: what came after the last checkpoint is done again.
    with pytest.raises(Interrupted):
        run(tmp_path, table, run="cut", report=at(8, stop))
    assert [line["step"] for line in shapes.journal(tmp_path / "cut")] == list(range(1, 9))
    assert (tmp_path / "cut/checkpoints/5").is_dir()

    # Asked to stop: saves where it is, which is a step or so later.
    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    told = run(tmp_path, table, run="cut", report=at(8, terminate))
    assert signal.getsignal(signal.SIGTERM) == before
    assert not told.finished and told.model is None and 8 <= told.step <= 9
    # One batch was ready ahead; what is saved is where the last one that was used left off.
    saved = json.loads((tmp_path / f"cut/checkpoints/{told.step}/data/metadata").read_text())
    assert saved["batches"] == told.step
    journal = shapes.journal(tmp_path / "cut")
    assert [line["step"] for line in journal] == list(range(1, told.step + 1))

    steps = []
    rest = run(tmp_path, table, run="cut", report=lambda p: steps.append(p.done))
    assert steps[0] == told.step + 1
    assert shapes.journal(tmp_path / "cut") == shapes.journal(tmp_path / "whole")
    assert shapes.bits(rest.params) == shapes.bits(whole.params)
    models = [(tmp_path / name / "model/weights.safetensors") for name in ("cut", "whole")]
    assert models[0].read_bytes() == models[1].read_bytes()

    with pytest.raises(ValueError, match="cut holds a finished run; choose another folder, or len"):
        run(tmp_path, table, run="cut")


def test_a_run_is_lengthened(tmp_path, table):
    """As one that was that long from the start, where the learning rate does not depend on it."""
    table = table | {"optimizer": table["optimizer"] | {"schedule": "constant"}}
    whole = run(tmp_path, table, run="whole")
    run(tmp_path, table | {"steps": 7}, run="short")
    rest = run(tmp_path, table, run="short")
    assert (rest.step, rest.finished) == (STEPS, True)
    assert shapes.journal(tmp_path / "short") == shapes.journal(tmp_path / "whole")
    assert shapes.bits(rest.params) == shapes.bits(whole.params)
    # What it was finished with before is kept.
    assert (tmp_path / "short/model_7/weights.safetensors").is_file()
    for steps in (STEPS, 7):
        with pytest.raises(ValueError, match=r"steps") as caught:
            run(tmp_path, table | {"steps": steps}, run="short")
        assert "\n" not in str(caught.value)


def test_a_longer_run_has_another_learning_rate(tmp_path, table):
    with pytest.raises(Interrupted):
        run(tmp_path, table, report=at(8, stop))
    with pytest.warns(UserWarning, match=r"lengthened from 12 to 20 steps: from step 5 on .*rate"):
        result = run(tmp_path, table | {"steps": 20})
    assert result.step == 20


def test_one_that_ended_before_its_model_was_written_writes_it(tmp_path, table, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", full)
        with pytest.raises(OSError, match=r"model could not be written: No space left") as caught:
            run(tmp_path, table)
    assert f"in the checkpoint of step {STEPS}, and the same" in str(caught.value)
    steps = []
    result = run(tmp_path, table, report=lambda p: steps.append(p.done))
    assert result.finished and steps == [] and (result.model / "weights.safetensors").is_file()


def test_a_run_off_the_main_thread_leaves_signals_alone(tmp_path, table):
    results = []
    before = signal.getsignal(signal.SIGINT)
    seen = at(3, lambda: results.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: results.append(run(tmp_path, table, report=seen)))
    thread.start()
    thread.join()
    assert results[0] == before and results[1].finished


def test_the_journal_forgets_what_is_done_again(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in range(1, 6):
        journal.write(step, {"loss": 1.0 / step})
    journal.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a process that was killed while it wrote
    Journal(tmp_path, 4).close()
    assert read_journal(tmp_path) == [{"step": n, "loss": 1.0 / n} for n in range(1, 5)]


def test_garbage_in_a_journal_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\x9b\xff\x00\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 is not one .*; remove the line"):
        Journal(tmp_path, 2)


def test_a_checkpoint_that_was_not_finished_is_none(tmp_path):
    """What a process that is killed while it writes leaves behind."""
    state = {"a": jax.numpy.arange(4.0)}
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state, {"at": step})
    checkpoints.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["2", "3"]
    (tmp_path / "3").rename(tmp_path / "4.orbax-checkpoint-tmp")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest == 2
    restored, at_step = checkpoints.restore(state)
    assert restored["a"].tolist() == [0, 1, 2, 3] and at_step == {"at": 2}
    checkpoints.save(4, state, {"at": 4})
    checkpoints.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["2", "4"]


@pytest.fixture
def begun(tmp_path, table):
    """A run's folder with a checkpoint in it."""
    recipe = recipe_from_dict(table)
    claim_folder(tmp_path / "run", recipe)
    (tmp_path / "run/checkpoints/5").mkdir(parents=True)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 48}, "batch is 24 there and 48 here"),
        ({"optimizer": {"lr": 1e-4, "warmup": 4}}, "optimizer.lr is 0.003 there and 0.0001 here"),
        ({"parameters": [{"pattern": "t", "lr": 2.0}]}, "parameters is [] there and [{"),
        ({"init": {"image": "x"}}, "init.image is None there and 'x' here"),
    ],
)
def test_another_recipe_has_another_folder(begun, table, change, message):
    with pytest.raises(ValueError, match="holds a run of another recipe") as caught:
        claim_folder(begun, recipe_from_dict(table | change))
    assert message in str(caught.value) and "choose another folder" in str(caught.value)


def test_what_touches_no_weight_may_change(begun, table):
    change = {"save": {"every": 3}, "data": table["data"] | {"workers": 2}}
    evaluate = {"evaluate": {"data": "x"}}
    claim_folder(begun, recipe_from_dict(table | change | evaluate))


def test_a_run_without_a_checkpoint_gives_way_to_its_mended_recipe(begun, table):
    (begun / "checkpoints/5").rename(begun / "checkpoints/5.orbax-checkpoint-tmp")
    mended = recipe_from_dict(table | {"batch": 48})
    claim_folder(begun, mended)
    assert json.loads((begun / "recipe.json").read_text()) == mended.to_dict()


def test_folders_of_something_else(tmp_path, table):
    recipe = recipe_from_dict(table)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no run; choose another folder"):
        claim_folder(tmp_path, recipe)
    (tmp_path / "recipe.json").write_text("[]")
    with pytest.raises(ValueError, match=r"recipe.json: not the recipe of a run"):
        claim_folder(tmp_path, recipe)
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match=r"notes.txt is a file; choose a folder"):
        claim_folder(tmp_path / "notes.txt", recipe)


def test_a_checkpoint_of_another_model_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(3, {"a": jax.numpy.zeros(4)}, {})
    checkpoints.wait()
    for like in ({"a": jax.numpy.zeros(5)}, {"b": jax.numpy.zeros(4)}):
        with pytest.raises(ValueError, match="of another model") as caught:
            checkpoints.restore(like)
        assert str(tmp_path / "3") in str(caught.value) and "\n" not in str(caught.value)
    checkpoints.close()


def test_two_processes_cannot_train_in_one_folder(tmp_path, table):
    """Each would remove what the other writes; a requeued job is the ordinary case."""
    recipe = recipe_from_dict(table)
    with held_folder(tmp_path / "run", recipe):
        with pytest.raises(ValueError, match=r"another run is writing to it \(process \d+ on .*\)"):
            run(tmp_path, table)
        assert not (tmp_path / "run/metrics.jsonl").exists()
    with held_folder(tmp_path / "run", recipe):
        pass


def damaged(folder, how):
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size)
    largest = max(files, key=lambda f: f.stat().st_size)
    if how == "cut":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif how == "flipped":
        data = bytearray(largest.read_bytes())
        for at in range(0, len(data), 7):
            data[at] ^= 0xFF
        largest.write_bytes(bytes(data))
    elif how == "removed":
        largest.unlink()
    else:
        for file in files:
            file.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "removed", "emptied"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, how):
    state = {"a": jax.numpy.arange(4000.0)}
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (3, 6):
        checkpoints.save(step, jax.tree.map(lambda x, n=step: x + n, state), {"at": step})
    checkpoints.close()
    damaged(tmp_path / "6", how)
    checkpoints = Checkpoints(tmp_path, keep=3)
    with pytest.warns(UserWarning, match=r"6: the checkpoint cannot be read .* of step 3"):
        restored, data = checkpoints.restore(state)
    assert restored["a"][0] == 3 and data == {"at": 3}
    # The steps are done again, and their checkpoint takes its place.
    checkpoints.save(6, state, {"at": 6})
    checkpoints.close()
    assert {"3", "6", "6.damaged"} == {entry.name for entry in tmp_path.iterdir()}
    again = Checkpoints(tmp_path, keep=3)
    assert again.latest == 6 and again.restore(state)[1] == {"at": 6}
    again.close()


def test_no_checkpoint_is_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(3, {"a": jax.numpy.zeros(4)}, {})
    checkpoints.close()
    damaged(tmp_path / "3", "emptied")
    checkpoints = Checkpoints(tmp_path, keep=3)
    with pytest.raises(ValueError, match=r"no other can be read; to begin anew, remove ") as caught:
        checkpoints.restore({"a": jax.numpy.zeros(4)})
    assert "\n" not in str(caught.value)
    checkpoints.close()


def test_a_failed_save_leaves_no_process_hanging(tmp_path, monkeypatch):
    from siglip_jax.training import checkpoints as module

    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    checkpoints = Checkpoints(tmp_path, keep=1)
    never = threading.Event()
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", full)
    monkeypatch.setattr(checkpoints._manager, "close", never.wait)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.wait()
    checkpoints.close()
    never.set()


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
