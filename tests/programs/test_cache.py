"""Programs in files: the same bits, no tracing, and never another program's."""

import dataclasses
import json
import os
import pickle

import command_line
import jax
import numpy as np
import pytest
from command_line import shell
from towers import case

import siglip_jax.models.two_towers
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, cache, executable_file, make_mesh
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


def flipped(data):
    """A bit in the middle: of a number, an instruction, a length."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


class Call:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


DAMAGE = {
    "empty": lambda data: b"",
    "text": lambda data: b"not a program",
    "bit": flipped,
    "header": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "pickle": lambda data: pickle.dumps(Call("touch CANARY")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_written_anew(folder, untraced, monkeypatch, tmp_path, damage):
    monkeypatch.chdir(tmp_path)
    first = np.asarray(program().texts(TINY.params, np.asarray(TINY.texts)))
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](whole))
    second = np.asarray(program().texts(TINY.params, np.asarray(TINY.texts)))
    untraced()
    third = np.asarray(program().texts(TINY.params, np.asarray(TINY.texts)))
    for again in (second, third):
        np.testing.assert_array_equal(again, first)
    assert not (tmp_path / "CANARY").exists()


def test_every_flipped_bit_is_seen_before_anything_is_parsed(folder, monkeypatch):
    program().texts(TINY.params, np.asarray(TINY.texts))
    (file,) = folder.iterdir()
    data = file.read_bytes()
    parsed = []
    monkeypatch.setattr(executable_file, "_Loaded", lambda *parts: parsed.append(parts))
    executable_file.from_bytes(file.name, data, None)
    assert len(parsed) == 1
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 200):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="damaged"):
            executable_file.from_bytes(file.name, bytes(wrong), None)
    with pytest.raises(ValueError, match="not the executable of this name"):
        executable_file.from_bytes("0" * 64, data, None)
    assert len(parsed) == 1


def test_there_is_no_pickle_in_a_file(folder):
    program().texts(TINY.params, np.asarray(TINY.texts))
    (file,) = folder.iterdir()
    body = file.read_bytes()[len(executable_file.MAGIC) + 32 :]
    facts = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    assert set(facts) == {"name", "arguments", "used", "result"}
    assert facts["result"] == [[len(TINY.texts), TINY.config.embed_dim], "float32"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["folder", "file", "owner"])
def test_what_others_can_write_is_not_read(folder, untraced, monkeypatch, what):
    texts = np.asarray(TINY.texts)
    first = np.asarray(program().texts(TINY.params, texts))
    (file,) = folder.iterdir()
    written = file.stat().st_mtime_ns
    if what == "owner":
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    else:
        (folder if what == "folder" else file).chmod(0o777)
    said = "belongs to another user" if what == "owner" else "can be written by other users"
    with pytest.warns(UserWarning, match=f"compiled programs are not read: .* {said}"):
        again = np.asarray(program().texts(TINY.params, texts))
    np.testing.assert_array_equal(again, first)
    if what == "file":  # it is replaced by one's own
        assert file.stat().st_mode & 0o777 == 0o600
    else:
        assert file.stat().st_mtime_ns == written


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
