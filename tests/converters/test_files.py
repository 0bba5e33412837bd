"""safetensors and shards: what is written is what the library reads, and damage is named."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from siglip_jax.converters.files import find_weights, open_file
from siglip_jax.converters.safetensors_file import SafetensorsReader, SafetensorsWriter
from siglip_jax.weights.reader import Header

RNG = np.random.default_rng(0)
TENSORS = {
    "b": RNG.normal(size=(3, 4)).astype(np.float32),
    "a": RNG.normal(size=5).astype(ml_dtypes.bfloat16),
    "half": RNG.normal(size=(2, 2)).astype(np.float16),
    "double": RNG.normal(size=3),
    "scalar": np.float32(3).reshape(()),
    "empty": np.zeros((0, 2), np.float32),
    "transposed": RNG.normal(size=(4, 6)).astype(np.float32).T,
}


def headers(tensors):
    return {name: Header(t.shape, t.dtype) for name, t in tensors.items()}


def write(path, tensors=None, **kw):
    tensors = TENSORS if tensors is None else tensors
    with SafetensorsWriter(path, headers(tensors), **kw) as writer:
        for name in reversed(tensors):  # any order
            writer.write(name, tensors[name])
    return path


def same(a, b):
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path / "x.safetensors")
    with open_file(path) as reader:
        assert reader.shapes == headers(TENSORS)
        assert all(same(reader.read(name), t) for name, t in TENSORS.items())


def test_the_library_reads_it_and_we_read_the_library(tmp_path):
    plain = {name: np.ascontiguousarray(t) for name, t in TENSORS.items() if name != "a"}
    path = write(tmp_path / "x.safetensors", plain)
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == plain.keys() and all(same(loaded[n], t) for n, t in plain.items())
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}
    safetensors.numpy.save_file(plain, tmp_path / "y.safetensors")
    with SafetensorsReader(tmp_path / "y.safetensors") as reader:
        assert all(same(reader.read(name), t) for name, t in plain.items())


def test_tensors_are_aligned(tmp_path):
    path = write(tmp_path / "x.safetensors")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    assert length % 8 == 0
    for entry in header.values():
        if "dtype" in entry:
            size = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}[entry["dtype"]]
            assert entry["data_offsets"][0] % size == 0


def test_shards(tmp_path):
    tensors = {f"t{i}": np.full((10, 10), i, np.float32) for i in range(5)}
    write(tmp_path / "model.safetensors", tensors, shard_bytes=900)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / names[-1]).read_text())
    assert index["metadata"] == {"total_size": 2000} and index["weight_map"]["t4"] == names[2]
    found = find_weights(tmp_path, ("model.safetensors",))
    with open_file(found) as reader:
        assert len(reader.files) == 3
        assert all(same(reader.read(name), t) for name, t in tensors.items())
    (tmp_path / names[1]).unlink()
    with pytest.raises(ValueError, match=r"names shards that are not there: model-00002-of-00003"):
        open_file(found)


def test_a_wrong_index(tmp_path):
    tensors = {f"t{i}": np.zeros(10, np.float32) for i in range(2)}
    write(tmp_path / "m.safetensors", tensors, shard_bytes=40)
    index = tmp_path / "m.safetensors.index.json"
    right = json.loads(index.read_text())
    first, second = sorted(right["weight_map"].values())
    for names, message in (
        ({"t0": second, "t1": second}, r"2 tensors|1 tensors are not where it says, t0"),
        ({"t0": first, "t1": second, "t2": first}, r"1 tensors are not where it says, t2"),
    ):
        index.write_text(json.dumps({"weight_map": names}))
        with pytest.raises(ValueError, match=message):
            open_file(index)
    write(tmp_path / first, {"t0": tensors["t0"], "more": tensors["t1"]})
    index.write_text(json.dumps(right))
    with pytest.raises(ValueError, match=r"1 tensors it does not list, more \(m-00001-of"):
        open_file(index)
    for text in ("{", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(ValueError, match="is not an index of shards"):
            open_file(index)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b[:-7], r"is cut short: 3\d\d bytes, not \d+; fetch it again"),
        (lambda b: b + b"1", r"is longer than its header says"),
        (lambda b: b[:20], r"is cut short: not even its header is whole"),
        (lambda b: b"", r"is empty; fetch it again"),
        (lambda b: b"version https://git-lfs.github.com/spec/v1", r"is a git-lfs pointer"),
        (lambda b: b"GGUF" * 9, r"is not a safetensors file: it begins with b'GGUF"),
        (lambda b: b[:9] + b"!" + b[10:], r"its header is damaged"),
        (lambda b: b.replace(b'"F32"', b'"F99"'), r"the header of x cannot be understood: .*F99"),
        (lambda b: b.replace(b"[3,4]", b"[3,5]"), r"x is damaged; fetch the file again"),
    ],
)
def test_damaged_safetensors(tmp_path, edit, message):
    path = write(tmp_path / "m.safetensors", {"x": TENSORS["b"], "z": np.zeros(20, np.float32)})
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        open_file(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not exist; did you mean \S*model\.safetensors\?"):
        open_file(tmp_path / "modell.safetensors")
    with pytest.raises(ValueError, match=r"has no weights: expected a or b, found model\.safetens"):
        find_weights(tmp_path, ("a", "b"))


def test_a_writer_wants_every_tensor_once(tmp_path):
    tensors = {"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)}
    with (
        pytest.raises(ValueError, match=r"^not written: y$"),
        SafetensorsWriter(tmp_path / "m", headers(tensors)) as writer,
    ):
        writer.write("x", tensors["x"])
    with SafetensorsWriter(tmp_path / "m", headers({"x": tensors["x"]})) as writer:
        with pytest.raises(ValueError, match="x: expected Header"):
            writer.write("x", tensors["y"])
        writer.write("x", tensors["x"])
        with pytest.raises(ValueError, match="once"):
            writer.write("x", tensors["x"])
