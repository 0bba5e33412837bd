"""siglip-jax diff: the same weights in any two formats, and every way to differ."""

import json
import re
import weakref

import command_line
import numpy as np
import pytest
import safetensors.numpy
from command_line import on_a_terminal, shell

from siglip_jax.converters import FORMATS, convert, open_checkpoint
from siglip_jax.converters.difference import tensor_differences
from siglip_jax.converters.safetensors_file import SafetensorsReader
from siglip_jax.weights.npz import write_npz

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")


def changed(model, path, change):
    """The model as a `.npz` after `change` was made to its dictionary of tensors."""
    tensors = safetensors.numpy.load_file(f"{model}/weights.safetensors")
    change(tensors)
    write_npz(path, tensors.items())
    return path


def compared(cli, *argv):
    code, out, err = cli("diff", *argv, "--json")
    assert err == []
    result = json.loads(out)
    assert code == (0 if result["identical"] else 1)
    return result


def test_help(cli):
    code, out, err = cli("diff", "--help")
    assert (code, err) == (0, [])
    assert max(map(len, out.splitlines())) <= 90
    assert "Exit code, as that of diff: 0 if every bit is the same, 1 if anything differs" in out


STACKING = ("npz", "tensorstore", "siglip_jax")  # the formats that can stack layers


@pytest.mark.parametrize(
    ("form", "scan"), [(f, False) for f in FORMATS] + [(f, True) for f in STACKING]
)
def test_identical_in_every_format(cli, model, form, scan):
    target = "x.npz" if form == "npz" else "x"
    convert(model, target, to=form, scan_image=scan, scan_text=scan)
    tower = ["only in A: txt/pos_embedding"] if form == "timm" else []
    for a, b in ((model, target), (target, model)):
        code, out, err = cli("diff", a, b)
        lines = out.splitlines()
        assert err == []
        if not tower:
            assert code == 0 and len(lines) == 3
            assert lines[-1] == "identical: 92 tensors, every bit"
        else:
            assert code == 1 and "differ" in lines[-1]
            assert lines[-1] == "52 tensors in both: 52 identical, 0 differ"
            assert sum(line.startswith("only in ") for line in lines) == 40
            assert "only in A: t" in lines or "only in B: t" in lines


def test_one_bit(cli, model):
    def change(tensors):
        tensors["img/pos_embedding"][0, 3, 5] = np.nextafter(
            tensors["img/pos_embedding"][0, 3, 5], np.float32(9)
        )

    path = changed(model, "x.npz", change)
    result = compared(cli, model, path)
    (tensor,) = [t for t in result["tensors"] if not t["identical"]]
    assert tensor["name"] == "img/pos_embedding" and 0 < tensor["largest"] < 1e-6
    assert (result["differ"], result["compared"]) == (1, 92)
    assert result["largest"] == tensor["largest"]
    code, out, _ = cli("diff", model, path)
    assert code == 1
    assert re.search(r"^img/pos_embedding +\S+e-0[789] +\S+$", out, re.M)
    assert out.splitlines()[-1].startswith("92 tensors in both: 91 identical, 1 differ, by up to ")


def test_a_known_difference(cli, model):
    def change(tensors):
        tensors["t"] += np.float32(0.25)
        tensors["txt/head/bias"][2] = np.nan
        tensors["b"] = tensors["b"].astype(np.float16)

    result = compared(cli, model, changed(model, "x.npz", change))
    tensors = {t["name"]: t for t in result["tensors"]}
    assert tensors["t"]["largest"] == 0.25
    # JSON has no infinity.
    assert tensors["txt/head/bias"]["largest"] is result["largest"] is None
    assert tensors["b"]["largest"] == 0 and tensors["b"]["dtypes"] == ["float32", "float16"]
    assert not tensors["b"]["identical"] and result["differ"] == 3
    _, out, _ = cli("diff", model, "x.npz")
    first, second, third = out.splitlines()[3:6]
    assert [line.split()[0] for line in (first, second, third)] == ["txt/head/bias", "t", "b"]
    assert third.endswith("float32 in A, float16 in B")


def test_equal_numbers_of_other_bits(cli, model):
    def zero(tensors):
        tensors["b"][:] = 0

    def minus_zero(tensors):
        tensors["b"][:] = -0.0

    a, b = changed(model, "a.npz", zero), changed(model, "b.npz", minus_zero)
    assert compared(cli, a, b, "--res", "32")["largest"] == 0
    code, out, _ = cli("diff", a, b, "--res", "32")
    assert code == 1 and re.search(r"^b +0 +0 +only in bits$", out, re.M)


def test_nan_is_equal_to_itself(cli, model):
    def change(tensors):
        tensors["b"][:] = np.nan

    a, b = changed(model, "a.npz", change), changed(model, "b.npz", change)
    assert compared(cli, a, b, "--res", "32")["identical"]


def test_other_architectures(cli, model, tmp_path):
    other = command_line.saved(tmp_path / "naflex", "naflex")
    result = compared(cli, model, other)
    assert result["architecture"]["vision.type"] == {"a": "fixed", "b": "naflex"}
    assert result["architecture"]["vision.posemb_grid"] == {"a": None, "b": 5}
    shapes = {t["name"]: t["shapes"] for t in result["tensors"] if t["largest"] is None}
    assert shapes["img/pos_embedding"] == [[1, 16, 24], [5, 5, 24]]
    code, out, _ = cli("diff", model, other)
    assert code == 1
    assert "architecture: vision.type is fixed in A, naflex in B" in out
    assert re.search(r"^img/pos_embedding +\(1, 16, 24\) in A, \(5, 5, 24\) in B$", out, re.M)


def test_heads_alone(cli, model, tmp_path):
    # Other systems' weights of 3 and of 6 heads have the same names, shapes and bits.
    convert(model, tmp_path / "a", to="transformers")
    convert(model, tmp_path / "b", to="transformers")
    file = tmp_path / "b" / "config.json"
    plain = json.loads(file.read_text())
    plain["vision_config"]["num_attention_heads"] = 6
    file.write_text(json.dumps(plain))
    result = compared(cli, "a", "b")
    assert result["architecture"] == {"vision.size.num_heads": {"a": 3, "b": 6}}


def test_one_tells_the_architecture_of_the_other(cli, model):
    convert(model, "x.npz", to="npz")
    for pair in ((model, "x.npz"), ("x.npz", model)):
        assert cli("diff", *pair)[0] == 0
    code, out, err = cli("diff", "x.npz", "x.npz")
    assert (code, out, len(err)) == (2, "", 1)
    assert "x.npz: these weights are no released checkpoint" in err[0] and "--res 32" in err[0]
    assert cli("diff", "x.npz", "x.npz", "--res", "33")[0] == 0
    assert cli("diff", "x.npz", "x.npz", "--architecture", model)[0] == 0


@pytest.mark.parametrize("argv", [("M", "no.npz"), ("no.npz", "M"), ("no.npz", "neither.npz")])
def test_bad_input(cli, model, argv):
    code, out, err = cli("diff", *(model if name == "M" else name for name in argv))
    assert (code, out, len(err)) == (2, "", 1)
    assert "no.npz does not exist" in err[0]


def test_a_person_sees_the_worst(monkeypatch, cli, model):
    def change(tensors):
        for i, name in enumerate(sorted(tensors)):
            tensors[name] += np.float32(i)

    path = changed(model, "x.npz", change)
    code, shown = on_a_terminal(monkeypatch, "diff", model, path, columns=120)
    assert code == 1
    lines = shown.splitlines()
    assert sum(line.startswith(("img/", "txt/")) for line in lines) == 20
    assert lines[-2] == "and 71 more; --json has them all"
    assert lines[3].startswith("txt/pos_embedding ")
    assert len(cli("diff", model, path)[1].splitlines()) == 3 + 91 + 1


def test_one_pair_at_a_time(model, monkeypatch):
    read, kept = SafetensorsReader.read, []

    def counted(self, name):
        assert sum(array() is not None for array in kept) < 2
        array = read(self, name)
        kept.append(weakref.ref(array))
        return array

    monkeypatch.setattr(SafetensorsReader, "read", counted)
    with open_checkpoint(model) as a, open_checkpoint(model) as b:
        assert sum(t.identical for t in tensor_differences(a, b)) == 92
    assert len(kept) == 184


def test_jax_is_not_needed(model):
    code = (
        "import sys\n"
        "from siglip_jax.cli.main import main\n"
        "assert main(['diff', sys.argv[1], sys.argv[1]]) == 0\n"
        "assert not (found := {'jax', 'flax', 'torch'} & set(sys.modules)), found\n"
    )
    shell("-c", code, model)
