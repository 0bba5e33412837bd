"""PyTorch's files without PyTorch: every dtype and view, and nothing but tensors."""

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from towers import FIXTURES

from siglip_jax.converters.files import open_file
from siglip_jax.converters.torch_file import TorchReader

FILES = FIXTURES / "torch_files"


@pytest.fixture(scope="module")
def values():
    with np.load(FILES / "values.npz") as stored:
        found = dict(stored)
    found["bfloat16"] = found["bfloat16"].view(ml_dtypes.bfloat16)
    return found


def test_every_tensor(values):
    with open_file(FILES / "state_dict.pt") as reader:
        assert reader.shapes.keys() == values.keys() - {"stepped"}
        for name, header in reader.shapes.items():
            tensor = reader.read(name)
            assert (tensor.shape, tensor.dtype) == header
            assert tensor.dtype == values[name].dtype and tensor.flags.c_contiguous
            assert tensor.tobytes() == values[name].tobytes(), name
        assert reader.ignored == ()


def test_a_training_checkpoint(values):
    with open_file(FILES / "training.pt") as reader:
        assert list(reader.shapes) == ["layer.weight"]
        assert reader.ignored == ("epoch", "name", "optimizer")
        np.testing.assert_array_equal(reader.read("layer.weight"), values["stepped"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "code.pt",
            r"code\.pt holds code, not only weights: its pickle asks for .*print; r",
        ),
        ("script.pt", r"script\.pt is a TorchScript program, not the weights of a model; save its"),
        ("legacy.pt", r"legacy\.pt is a bare pickle, as PyTorch wrote before 1\.6; load it there"),
        ("bare.pkl", r"bare\.pkl is a bare pickle"),
        ("none.pt", r"none\.pt does not exist"),
    ],
)
def test_what_is_refused(capsys, name, message):
    with pytest.raises(ValueError, match=message) as error:
        open_file(FILES / name)
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")  # nothing ran


def archive(path, data, **members):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", data)
        for name, content in members.items():
            file.writestr(f"x/{name.replace('__', '/')}", content)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v3\n.",
        b"ccollections\ndefaultdict\n.",
    ],
)
def test_no_pickle_calls_anything(tmp_path, data):
    with pytest.raises(ValueError, match="holds code, not only weights: its pickle asks for"):
        TorchReader(archive(tmp_path / "x.pt", data))


@pytest.mark.parametrize("loaded", [[1, 2], {}, {"a": 1, "b": [2]}, 3])
def test_no_tensors(tmp_path, loaded):
    path = archive(tmp_path / "x.pt", pickle.dumps(loaded, protocol=2))
    with pytest.raises(ValueError, match=r"x\.pt (holds|is not) .*dictionary of tensors"):
        TorchReader(path)


def test_damage(tmp_path):
    whole = (FILES / "state_dict.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"short\.pt is cut short or damaged; copy it again"):
        open_file(tmp_path / "short.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.pt is not a PyTorch file"):
        open_file(tmp_path / "empty.pt")
    (tmp_path / "text.bin").write_text("hello " * 20)
    with pytest.raises(ValueError, match=r"text\.bin is not a PyTorch file: it begins with b'hell"):
        open_file(tmp_path / "text.bin")
    with pytest.raises(ValueError, match="its list of tensors is damaged"):
        TorchReader(archive(tmp_path / "x.pt", b"\x80\x02}X\xff"))
    path = archive(tmp_path / "y.pt", b"\x80\x02}.", byteorder=b"big")
    with pytest.raises(ValueError, match="big-endian"):
        TorchReader(path)
    with pytest.raises(ValueError, match=r"z\.pt is another zip archive"):
        with zipfile.ZipFile(tmp_path / "z.pt", "w") as file:
            file.writestr("readme", "hello")
        TorchReader(tmp_path / "z.pt")


@pytest.mark.parametrize("content", [None, b"123"])
def test_a_storage_that_is_missing_or_too_small(tmp_path, content):
    with zipfile.ZipFile(FILES / "state_dict.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    storage = next(name for name in members if name.endswith("data/0"))
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        for name, data in members.items():
            if name != storage or content is not None:
                file.writestr(name, content if name == storage else data)
    with pytest.raises(ValueError, match=r"layer\.weight is damaged or incomplete"):
        TorchReader(tmp_path / "x.pt")


def test_a_flipped_bit(tmp_path):
    data = bytearray((FILES / "state_dict.pt").read_bytes())
    with zipfile.ZipFile(FILES / "state_dict.pt") as source:
        member = next(name for name in source.namelist() if name.endswith("data/0"))
        place = bytes(data).index(source.read(member))
    data[place] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    with (
        TorchReader(tmp_path / "x.pt") as reader,
        pytest.raises(ValueError, match=r"layer\.weight is damaged .*; copy it again"),
    ):
        reader.read("layer.weight")
