"""Programs in a file give what the scorer's own give."""

import dataclasses
import datetime
import json
import os
import re
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
import tiny_checkpoint
from flax.traverse_util import unflatten_dict
from paths import SUPPORT

from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel
from siglip_jax.plan import scoring_program
from siglip_jax.preprocessing import custom_profile
from siglip_jax.programs import load_program, make_mesh, save_program
from siglip_jax.scoring import Scorer

PLAIN = custom_profile(tiny_checkpoint.CONFIG, pad=1)
WIDE = dataclasses.replace(PLAIN, image=dataclasses.replace(PLAIN.image, value_range=(0.0, 1.0)))


def scorer(**changes):
    params = unflatten_dict(changes.pop("tensors", tiny_checkpoint.tensors()), sep="/")
    model = SiglipModel(tiny_checkpoint.CONFIG, changes.pop("execution", Execution()))
    options = {"mesh": make_mesh(), "batch_size": 16, "text_batch_size": 8} | changes
    return Scorer(model, params, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    program = scoring_program(tiny_checkpoint.CONFIG, jax.devices(), Execution())
    path = tmp_path_factory.mktemp("saved") / "tiny.zip"
    return save_program(path, program, {"images": 16, "texts": 8}, platform="cpu")


def test_a_scorer_starts_from_a_saved_program(saved):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    ids = rng.integers(0, 50, (9, 16)).astype(np.int32)
    own, other = scorer(), scorer()
    other = load_program(saved).start(other)
    assert other.program.images is not own.program.images
    np.testing.assert_array_equal(other.embed_images(images), own.embed_images(images))
    np.testing.assert_array_equal(other.embed_texts(ids), own.embed_texts(ids))


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_weights_that_are_stored_in_half_precision(saved, stored):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    ids = np.ones((9, 16), np.int32)
    tensors = {name: a.astype(stored) for name, a in tiny_checkpoint.tensors().items()}
    own, other = scorer(tensors=tensors), scorer(tensors=tensors)
    other = load_program(saved).start(other)
    np.testing.assert_array_equal(other.embed_images(images), own.embed_images(images))
    np.testing.assert_array_equal(other.embed_texts(ids), own.embed_texts(ids))


def test_weights_of_more_precision_than_the_program_takes(tmp_path):
    execution = Execution(weights="bfloat16")
    program = scoring_program(tiny_checkpoint.CONFIG, jax.devices(), execution)
    half = save_program(tmp_path / "half.zip", program, {"texts": 8}, platform="cpu")
    started = load_program(half).start(scorer(execution=execution))
    with pytest.raises(ValueError, match=r"takes weights in bfloat16, .* are in float32; load"):
        started.embed_texts(np.ones((8, 16), np.int32))


def test_the_file_says_what_it_is_of(saved):
    program = load_program(saved)
    assert program.config == tiny_checkpoint.CONFIG
    assert (program.execution, program.platform, program.devices) == (Execution(), "cpu", 8)
    assert program.batches == {"images": 16, "texts": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 32}, "another batch of images than the scorer: 16 and 32"),
        (
            {"execution": Execution(dtype="bfloat16")},
            "another dtype than the scorer: float32 and bf",
        ),
        ({"mesh": None}, "another devices than the scorer: 8 and 1"),
        ({"profile": WIDE}, "another range of pixels than the scorer: "),
    ],
    ids=["batch", "dtype", "devices", "pixels"],
)
def test_a_scorer_of_something_else_is_refused(saved, changes, message):
    with pytest.raises(ValueError, match=message):
        load_program(saved).start(scorer(**changes))


def test_weights_that_are_split_otherwise(saved):
    split = dataclasses.replace(load_program(saved), split=True)
    with pytest.raises(ValueError, match="another split of weights than the scorer: True and F"):
        split.start(scorer())


def test_what_cannot_be_read(saved, tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        load_program(tmp_path / "none.zip")
    (tmp_path / "text").write_text("not a zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name in ("text", "empty.zip"):
        with pytest.raises(ValueError, match=f"{name} is no program that siglip-jax plan --save"):
            load_program(tmp_path / name)
    with pytest.raises(ValueError, match="is for 8 devices, and there are 2"):
        load_program(saved, jax.devices()[:2])
    program = scoring_program(tiny_checkpoint.CONFIG, jax.devices(), Execution())
    tpu = save_program(tmp_path / "tpu.zip", program, {"texts": 8}, platform="tpu")
    with pytest.raises(ValueError, match="is for tpu, and the devices are cpu"):
        load_program(tpu)


def with_facts(saved, path, **facts):
    """A saved program that says other things of itself; None takes one out."""
    with zipfile.ZipFile(saved) as file, zipfile.ZipFile(path, "w") as made:
        for member in file.infolist():
            data = file.read(member)
            if member.filename == "program.json":
                there = json.loads(data) | facts
                data = json.dumps({k: v for k, v in there.items() if v is not None}).encode()
            elif facts.get("garbled"):
                data = data[:40]
            made.writestr(member, data)
    return path


def days_ago(count):
    today = datetime.datetime.now(datetime.UTC).date()
    return (today - datetime.timedelta(count)).isoformat()


def test_a_file_says_how_old_it_is(saved, tmp_path):
    program = load_program(saved)
    assert program.jax == jax.__version__ and program.written.isoformat() == days_ago(0)
    # Before files said so: the zip does.
    undated = load_program(with_facts(saved, tmp_path / "undated.zip", date=None))
    assert abs((undated.written - program.written).days) <= 1  # of the local day
    # The same jax runs what it wrote, at any age; another, for as long as jax promises.
    for facts in ({"date": days_ago(400)}, {"date": days_ago(180), "jax": "0.9.0"}):
        assert load_program(with_facts(saved, tmp_path / "a.zip", **facts)).functions
    old = with_facts(saved, tmp_path / "old.zip", date=days_ago(181), jax="0.9.0")
    said = (
        f"{old} was written 181 days ago, on {days_ago(181)}, by jax 0.9.0; jax promises to run "
        f"what is 180 days old, and this is jax {jax.__version__}: write it again with "
        "siglip-jax plan MODEL --on local --save FILE"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        load_program(old)


def test_what_another_jax_wrote_and_this_one_does_not_read(saved, tmp_path):
    newer = with_facts(saved, tmp_path / "newer.zip", jax="9.9.9", garbled=True)
    with pytest.raises(ValueError, match=r"by jax 9\.9\.9, and this is .*, which does not read it"):
        load_program(newer)
    damaged = with_facts(saved, tmp_path / "damaged.zip", garbled=True)
    with pytest.raises(ValueError, match=r"damaged\.zip is no program that siglip-jax plan --save"):
        load_program(damaged)


def test_a_patches_program_can_be_saved(tmp_path):
    from siglip_jax.config import NaFlexVision
    from siglip_jax.preprocessing import Patches

    config = dataclasses.replace(
        tiny_checkpoint.CONFIG,
        vision=NaFlexVision(size=tiny_checkpoint.SIZE, patch=8, posemb_grid=4),
    )
    program = scoring_program(config, jax.devices()[:1], Execution())
    path = save_program(tmp_path / "n.zip", program, {"images": 2}, platform="cpu", patches=6)
    params = unflatten_dict(tiny_checkpoint.tensors(config), sep="/")
    rng = np.random.default_rng(1)
    index = np.arange(12, dtype=np.int32).reshape(2, 6)
    patches = Patches(
        rng.standard_normal((2, 6, 192), np.float32), np.ones_like(index), index // 3, index % 3
    )
    ours = load_program(path).functions["images"](params, patches)
    np.testing.assert_array_equal(ours, program.images(params, patches))


TPU = """
import sys
from siglip_jax.plan import make_plan, find_slice, scoring_workload
from siglip_jax.programs import load_program, save_program
from siglip_jax.plan import scoring_program
import tiny_checkpoint
from siglip_jax.config import Execution
where = find_slice("v5e:2x2")
program = scoring_program(tiny_checkpoint.CONFIG, where.devices, Execution(dtype="bfloat16"))
plan = make_plan(scoring_workload("images", program), 16, where)
print(plan.chips, plan.total < plan.capacity, [c.kind for c in plan.collectives], plan.rate > 0)
save_program(sys.argv[1], program, {"images": 16}, platform="tpu")
one = find_slice("v6e:1x1")
print(len(one.devices), one.chip.name)
"""


def test_a_slice_that_is_not_there(tmp_path):
    """In a process of its own: libtpu writes to stderr and reads the environment once."""
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    path = os.pathsep.join([str(SUPPORT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", TPU, str(tmp_path / "p.zip")],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4 True ['all-gather'] True", "1 v6e"]
    with pytest.raises(ValueError, match="is for tpu, and the devices are cpu"):
        load_program(tmp_path / "p.zip")
