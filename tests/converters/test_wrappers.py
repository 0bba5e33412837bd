"""What training code puts around weights: taken off, reported, and never loosely."""

import argparse
import json
import pathlib
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch_pickle
from tiny_checkpoint import CONFIG, tensors

import siglip_jax
from siglip_jax.converters import convert, open_checkpoint
from siglip_jax.converters.files import open_file
from siglip_jax.converters.loop_form import LoopForm
from siglip_jax.converters.safetensors_file import SafetensorsWriter
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.reader import Header


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of transformers, and its tensors."""
    root = tmp_path_factory.mktemp("plain")
    write_npz(root / "tiny.npz", tensors().items())
    convert(root / "tiny.npz", root / "hf", to="transformers", config=CONFIG, pad=1)
    with open_file(root / "hf" / "model.safetensors") as reader:
        return root / "hf", {name: reader.read(name) for name in reader.shapes}


def save(path, items):
    """Writes `items` in the format that the ending of `path` says."""
    if path.suffix == ".npz":
        np.savez(path, **items)
    elif path.suffix == ".safetensors":
        headers = {name: Header(a.shape, a.dtype) for name, a in items.items()}
        with SafetensorsWriter(path, headers) as writer:
            for name, array in items.items():
                writer.write(name, array)
    else:
        torch_pickle.save(path, items)


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_checkpoint(path) as opened:
            reader = LoopForm(opened.reader)
            return opened, {name: reader.read(name) for name in reader.shapes}


@pytest.mark.parametrize("ending", ["safetensors", "pt", "npz"])
@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("_orig_mod.", "torch.compile"),
        ("module.", "DDP"),
        ("model.", "Lightning"),
        ("module._orig_mod.", "torch.compile"),
        ("_forward_module.model._orig_mod.", "Lightning"),
        ("_fsdp_wrapped_module.", "FSDP"),
        ("ema_model.", "average"),
        ("module_ema.module.", "average"),
        ("state_dict.model.", "training checkpoint"),
    ],
)
def test_a_prefix_is_taken_off(tmp_path, folder, prefix, said, ending):
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    path = tmp_path / f"weights.{ending}"
    save(path, {f"{prefix}{name}": array for name, array in items.items()})
    opened, found = read(path)
    assert len(opened.reports) == 1 and said in opened.reports[0]
    _, expected = read(hf)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_prefix_inside_of_names(tmp_path, folder):
    """Compiled, or wrapped for FSDP, block by block."""
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    inner = {
        re.sub(r"(layers\.\d+)\.", r"\1._fsdp_wrapped_module._orig_mod.", name): array
        for name, array in items.items()
    }
    save(tmp_path / "model.safetensors", inner)
    opened, _ = read(tmp_path)
    assert "FSDP" in opened.reports[0] and "torch.compile" in opened.reports[0]


def test_an_average_is_chosen_and_what_is_left_out_is_named(tmp_path, folder):
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    name = "logit_scale"
    stored = {f"online_model.{n}": a for n, a in items.items()}
    stored |= {f"ema_model.{n}": a + 1 if n == name else a for n, a in items.items()}
    stored |= {"initted": np.ones(1, np.float32), "step": np.ones((), np.int64)}
    stored |= {"optimizer.state.0.exp_avg": np.ones(3, np.float32)}
    save(tmp_path / "model.safetensors", stored)
    opened, found = read(tmp_path)
    np.testing.assert_array_equal(found["t"], items[name].reshape(1) + 1)
    assert opened.dropped["online_model.logit_scale"].startswith("a raw weight beside its average")
    assert opened.dropped["optimizer.state.0.exp_avg"] == "optimizer state"
    (line,) = opened.reports
    assert f"a raw weight beside its average (ema_model) ({len(items)} tensors)" in line
    assert "optimizer state (1 tensors)" in line and "a counter of training (2 tensors)" in line


def test_a_checkpoint_of_a_trainer(tmp_path, folder):
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    path = tmp_path / "last.ckpt"
    state = {f"model.{name}": array for name, array in items.items()}
    torch_pickle.save(
        path, {"state_dict": state, "optimizer_states": [{}], "epoch": 3, "loops": {}}
    )
    opened, _ = read(path)
    (line,) = opened.reports
    assert "weights under state_dict" in line and "model (Lightning)" in line
    assert "left out: epoch, loops, optimizer_states" in line


def test_the_average_of_a_trainer_is_chosen(tmp_path, folder):
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    averaged = {f"module.{n}": a + (n == "logit_scale") for n, a in items.items()}
    path = tmp_path / "checkpoint.pth"
    torch_pickle.save(path, {"state_dict": dict(items), "state_dict_ema": averaged, "epoch": 1})
    opened, found = read(path)
    np.testing.assert_array_equal(found["t"], items["logit_scale"].reshape(1) + 1)
    assert "weights under state_dict_ema" in opened.reports[0]
    assert "left out: epoch, state_dict (raw weights)" in opened.reports[0]


def test_load_warns_and_a_certificate_says(tmp_path, folder):
    hf, items = folder
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_bytes((hf / "config.json").read_bytes())
    save(made / "model.safetensors", {f"_orig_mod.{n}": a for n, a in items.items()})
    profile = siglip_jax.preprocessing.custom_profile(CONFIG, 1)
    with pytest.warns(UserWarning, match=r"names without _orig_mod \(torch\.compile\)"):
        siglip_jax.load(made, profile=profile)
    record = convert(made, tmp_path / "out.npz", to="npz")
    assert any("torch.compile" in note for note in record.notes)


def test_names_of_big_vision(tmp_path):
    items = tensors()
    save(tmp_path / "x.npz", {f"ema/{n}": a for n, a in items.items()})
    with open_checkpoint(tmp_path / "x.npz", config=CONFIG) as opened:
        assert opened.format == "npz" and "ema (an average of weights)" in opened.reports[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items | {"module.extra.weight": np.ones(2, np.float32)}, "extra.weight"),
        (lambda items: dict(list(items.items())[1:]), "missing"),
        (lambda items: items | {"module._flat_param": np.ones(2, np.float32)}, "FULL_STATE_DICT"),
        (
            lambda items: items | {"_orig_mod.module.logit_scale": np.ones(1, np.float32)},
            "holds logit_scale twice",
        ),
    ],
)
def test_never_loosely(tmp_path, folder, change, message):
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    save(tmp_path / "model.safetensors", change({f"module.{n}": a for n, a in items.items()}))
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path)


def test_shards_of_fsdp_are_named(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    (tmp_path / ".metadata").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"sharded checkpoint of torch\.distributed .*dcp_to_torch"
    ):
        open_checkpoint(tmp_path)


def test_other_models_keep_their_prefix(tmp_path):
    """`model.` is a part of many models, and is left where no SigLIP comes out."""
    names = ["model.vision_tower.x.weight", "model.language_model.y.weight"]
    save(tmp_path / "x.safetensors", {name: np.ones(2, np.float32) for name in names})
    with open_file(tmp_path / "x.safetensors") as reader:
        assert sorted(reader.shapes) == sorted(names)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e4m3fn", "int64", "bool"])
def test_a_dtype_in_a_pickle_is_data(tmp_path, name):
    path = tmp_path / "x.pt"
    torch_pickle.save(path, {"state_dict": {"w": np.ones(2, np.float32)}})
    with zipfile.ZipFile(path) as source:
        members = {n: source.read(n) for n in source.namelist()}
    key = next(n for n in members if n.endswith("data.pkl"))
    dtype = b"X\x05\x00\x00\x00dtypectorch\n" + name.encode() + b"\ns."
    members[key] = members[key][:-1] + dtype
    with zipfile.ZipFile(path, "w") as file:
        for member, content in members.items():
            file.writestr(member, content)
    with open_file(path) as reader:
        assert list(reader.shapes) == ["w"] and "dtype" in reader.ignored


def test_a_dtype_is_no_way_to_code(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("x/data.pkl", b"ctorch\nfloat_power\n.")
    with pytest.raises(ValueError, match=r"its pickle asks for torch\.float_power"):
        open_file(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=1e-3, opt="adamw"),
        np.float32(3.5),
        np.float64(0.5),
        pathlib.PosixPath("/data"),
    ],
)
def test_settings_and_metrics_beside_the_weights_are_data(tmp_path, value):
    """As timm's trainer saves them."""
    state = {"w": np.ones(2, np.float32)}
    torch_pickle.save(tmp_path / "x.pt", {"state_dict": state, "args": value, "epoch": 3})
    with open_file(tmp_path / "x.pt") as reader:
        assert list(reader.shapes) == ["w"] and reader.ignored == ("args", "epoch")


def test_a_path_that_a_newer_python_saved(tmp_path):
    """Python 3.13 calls its class by another module."""
    state = {"w": np.ones(2, np.float32)}
    args = pathlib.PosixPath("/data")
    torch_pickle.save(tmp_path / "old.pt", {"state_dict": state, "args": args})
    with (
        zipfile.ZipFile(tmp_path / "old.pt") as old,
        zipfile.ZipFile(tmp_path / "x.pt", "w") as new,
    ):
        for member in old.namelist():
            content = re.sub(rb"cpathlib(\._local)?\n", b"cpathlib._local\n", old.read(member))
            assert (b"cpathlib._local\nPosixPath" in content) == member.endswith("data.pkl")
            new.writestr(member, content)
    with open_file(tmp_path / "x.pt") as reader:
        assert list(reader.shapes) == ["w"] and reader.ignored == ("args",)


def test_a_wrapped_index_of_shards(tmp_path, folder):
    hf, items = folder
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    wrapped = {f"_orig_mod.{name}": array for name, array in items.items()}
    names, index = sorted(wrapped), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save(tmp_path / file, {name: wrapped[name] for name in part})
        index |= dict.fromkeys(part, file)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    opened, _ = read(tmp_path)
    assert "torch.compile" in opened.reports[0] and len(opened.files) == 3
