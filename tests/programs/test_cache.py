"""Programs in files: the same bits, no tracing, and never another program's."""

import dataclasses
import json
import os

import command_line
import jax
import numpy as np
import pytest
from command_line import shell
from towers import case

import siglip_jax.models.two_towers
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, cache, make_mesh
from siglip_jax.programs.cache import program_key, read_ahead

model, pictures = command_line.model, command_line.pictures
TINY = case("loop")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where programs are kept: not jax's own cache, which would outlive the test."""
    monkeypatch.setattr(cache, "_folder", lambda: tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def untraced(monkeypatch):
    """After it is called, tracing a model fails."""

    def refuse(*args, **kw):
        raise AssertionError("the model was traced")

    return lambda: monkeypatch.setattr(siglip_jax.models.two_towers.SiglipModel, "__call__", refuse)


def program(model=None, **options):
    model = model or SiglipModel(TINY.config, TINY.execution)
    return Program(model, make_mesh(jax.devices()[:1]), quick_start=True, **options)


def outputs(program, params=TINY.params):
    zimg = np.asarray(program.images(params, IMAGES))
    ztxt = np.asarray(program.texts(params, np.asarray(TINY.texts)))
    return zimg, ztxt, np.asarray(program.logits(params, zimg, ztxt))


def test_a_second_start_traces_nothing_and_gives_the_same_bits(folder, untraced):
    first = outputs(program())
    assert len(list(folder.iterdir())) == 3
    untraced()
    for one, other in zip(first, outputs(program()), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["naflex", "image_scan", "bfloat16"])
def test_other_towers(folder, untraced, name):
    tiny = case(name)

    def zimg():
        started = program(SiglipModel(tiny.config, tiny.execution))
        return np.asarray(started.images(tiny.params, tiny.images))

    first = zimg()
    untraced()
    np.testing.assert_array_equal(zimg(), first)


@pytest.mark.parametrize(
    "changed",
    [
        {"pixels": (0.0, 1.0)},
        {"model": SiglipModel(TINY.config, Execution(attention="xla"))},
        {"model": SiglipModel(TINY.config, Execution(precision="default"))},
    ],
    ids=["pixels", "attention", "precision"],
)
def test_another_execution_is_another_program(folder, untraced, changed):
    outputs(program())
    untraced()
    with pytest.raises(AssertionError, match="traced"):
        outputs(program(**changed))


def test_another_batch_or_dtype_is_another_program(folder, untraced):
    kept = program()
    outputs(kept)
    untraced()
    kept.images(TINY.params, IMAGES)
    with pytest.raises(AssertionError, match="traced"):
        kept.images(TINY.params, IMAGES[:2])
    with pytest.raises(AssertionError, match="traced"):
        kept.images(TINY.params, np.float32(IMAGES))
    half = jax.tree.map(lambda leaf: np.asarray(leaf, "float16"), TINY.params)
    with pytest.raises(AssertionError, match="traced"):
        kept.images(half, IMAGES)


def key(**changed):
    facts = {
        "task": "images",
        "config": TINY.config,
        "execution": Execution(),
        "pixels": (-1.0, 1.0),
        "arrays": [((2, 3), "float32")],
    }
    return program_key(**facts | changed)


def test_the_key_has_all_that_decides(monkeypatch):
    keys = [key(), key(task="texts"), key(arrays=[((2, 3), "int8")])]
    vision = dataclasses.replace(TINY.config.vision, res=64)
    keys.append(key(config=dataclasses.replace(TINY.config, vision=vision)))
    size = dataclasses.replace(TINY.config.vision.size, num_heads=1)
    vision = dataclasses.replace(TINY.config.vision, size=size)
    keys.append(key(config=dataclasses.replace(TINY.config, vision=vision)))
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math")
    keys.append(key())
    monkeypatch.setattr(cache, "_installed", lambda: ["another version"])
    keys.append(key())
    with monkeypatch.context() as other:
        values = jax.config.values | {"jax_default_matmul_precision": "bfloat16"}
        other.setattr(type(jax.config), "values", property(lambda self: values))
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == key()


@pytest.mark.parametrize("damage", [b"", b"not a program"], ids=["empty", "text"])
def test_a_damaged_file_is_written_anew(folder, untraced, damage):
    first = outputs(program())
    for file in folder.iterdir():
        file.write_bytes(damage)
    second = outputs(program())
    untraced()
    for results in zip(first, second, outputs(program()), strict=True):
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])


def test_what_cannot_be_kept_runs_as_ever(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (None, tmp_path / "file" / "kept"):
        monkeypatch.setattr(cache, "_folder", lambda folder=folder: folder)
        np.testing.assert_allclose(outputs(program())[2].shape, (3, len(TINY.texts)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_class_of_model_keeps_nothing(folder):
    class Other(SiglipModel):
        pass

    outputs(program(Other(TINY.config, TINY.execution)))
    assert not folder.exists()


def test_reading_ahead(folder, monkeypatch):
    monkeypatch.setattr(cache, "_ahead", {})  # what another test has read and not used
    expected = outputs(program())
    batches = {"images": len(IMAGES), "texts": len(TINY.texts)}
    monkeypatch.setattr(jax, "devices", lambda *backend: jax.local_devices()[:1])
    read_ahead(TINY.config, TINY.execution, (-1.0, 1.0), batches)
    ahead = dict(cache._ahead)
    assert len(ahead) == 2
    assert all(future.result() is not None for future in ahead.values())
    monkeypatch.setattr(cache, "_read", lambda *args: None)  # from now on, none is found
    started = program()
    np.testing.assert_array_equal(np.asarray(started.images(TINY.params, IMAGES)), expected[0])
    assert len(cache._ahead) == 1
    started.texts(TINY.params, np.asarray(TINY.texts))
    assert not cache._ahead


def test_score_twice(model, pictures, tmp_path):
    """A process of its own, with jax's cache beside: what is kept is read, and once it is gone
    a program that XLA itself took from its cache is not kept, as it would not run."""
    environment = os.environ | {
        "SIGLIP_JAX_HOME": str(tmp_path / "home"),
        "JAX_LOG_COMPILES": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
    }
    score = ("-m", "siglip_jax.cli.main", "score", str(pictures), "--model", model, "--json")

    def run():
        done = shell(*score, "--labels", "cat", "dog", env=environment)
        compiled = [line for line in done.stderr.splitlines() if "Compiling jit(embed_" in line]
        return json.loads(done.stdout)["images"], compiled

    first, compiled = run()
    assert len(compiled) == 2
    assert run() == (first, [])
    kept = tmp_path / "home" / "compiled" / "siglip_jax"
    for file in kept.iterdir():
        file.unlink()
    for _ in range(2):
        again, compiled = run()
        assert again == first
