"""What files of weights may claim: damaged and made-up archives, in one line and little memory."""

import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest

from siglip_jax.converters.files import open_file
from siglip_jax.converters.json_file import read_settings
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.npz import NpzReader, write_npz
from siglip_jax.weights.tensorstore_folder import FolderReader, write_folder


@pytest.fixture
def npz(tmp_path):
    write_npz(tmp_path / "x.npz", [("t", np.ones(3, np.float32))])
    return tmp_path / "x.npz"


def test_an_npz_that_unpacks_to_far_more_than_it_takes(tmp_path):
    facts = {"descr": "<f4", "fortran_order": False, "shape": (75 << 20,)}
    deflated = zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED)
    with deflated as file, file.open("t.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, facts)
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(ValueError, match=r"x\.npz: it claims to hold .* which no weights do"):
        NpzReader(tmp_path / "x.npz")


def test_zeros_of_a_model_that_was_never_trained_are_read(tmp_path):
    zeros = np.zeros(1 << 22, np.float32)
    write_npz(tmp_path / "x.npz", [("t", zeros)], compressed=True)
    with NpzReader(tmp_path / "x.npz") as reader:
        np.testing.assert_array_equal(reader.read("t"), zeros)


def test_members_that_overlap(npz):
    data = npz.read_bytes()
    with zipfile.ZipFile(npz) as file:
        (info,) = file.infolist()
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x05\x06")]
    name = info.filename.encode()
    again = [entry.replace(name, name.replace(b"/t", b"/" + bytes([97 + i]))) for i in range(20)]
    body = data[:start] + b"".join(again)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 20, 20, len(body) - start, start, 0)
    npz.write_bytes(body + end)
    with pytest.raises(ValueError, match=r"x\.npz: its members overlap"):
        NpzReader(npz)


def test_a_list_of_members_that_is_all_there_is(npz, monkeypatch):
    monkeypatch.setattr("siglip_jax.weights.bounds.DIRECTORY", 10)
    with pytest.raises(ValueError, match=r"x\.npz: the list of its members has \d+ bytes"):
        NpzReader(npz)


def test_an_encrypted_member_and_one_named_twice(npz):
    data = npz.read_bytes()
    start = data.index(b"PK\x01\x02")
    npz.write_bytes(data[: start + 8] + b"\1" + data[start + 9 :])
    with pytest.raises(ValueError, match="is encrypted"):
        NpzReader(npz)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(npz, "w") as file:
        for _ in range(2):
            file.writestr("t.npy", b"")
    with pytest.raises(ValueError, match=r"t\.npy is in it twice"):
        NpzReader(npz)


def test_a_way_to_compress_that_no_weights_have(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("t.npy", b"")
    with pytest.raises(ValueError, match="compressed in a way that is not read"):
        NpzReader(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, -1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,), }",
        "{'descr': [('a', '<f4', 1000000000)], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3L,",
        "{'descr': 3, 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1000000000000), }",
    ],
)
def test_headers_of_arrays(tmp_path, header):
    text = header.encode().ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(12)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("t.npy", data)
    with pytest.raises(ValueError, match=r"x\.npz: t (is damaged|holds)") as error:
        NpzReader(tmp_path / "x.npz")
    assert "\n" not in str(error.value)


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start, stop, shape=None):
    return {"dtype": "F32", "shape": shape or [(stop - start) // 4], "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12), "c": entry(12, 16)}, "a and b overlap"),
        ({"a": entry(0, 8), "b": entry(0, 8), "c": entry(8, 16)}, "a and b overlap"),
        ({"a": entry(0, 4), "b": entry(8, 16)}, "a and b leave a gap"),
        ({"b": entry(8, 16)}, "the header and b leave a gap"),
        ({"a": entry(0, 16, [-2, -2])}, "the header of a cannot be understood"),
        ({"a": entry(0, 16, [True, 4])}, "the header of a cannot be understood"),
        ({"a": entry(0, 16) | {"data_offsets": [0.0, 16.0]}}, "the header of a cannot"),
        ({"a": entry(0, 16), "b": entry(16, 16, [10**9, 0])}, "the header of b cannot"),
        (b"[" * 100_000, "its header is damaged|not a safetensors"),
        (b'{"a":' * 100_000, "its header is damaged"),
    ],
)
def test_tensors_tile_a_safetensors_file(tmp_path, header, message):
    path = safetensors(tmp_path / "x.safetensors", header, bytes(16))
    with pytest.raises(ValueError, match=message) as error:
        open_file(path)
    assert "\n" not in str(error.value)


def test_empty_tensors_lie_anywhere_between(tmp_path):
    header = {
        "a": entry(0, 8),
        "e": entry(8, 8, [0, 3]),
        "b": entry(8, 16),
        "f": entry(16, 16, [0]),
    }
    with open_file(safetensors(tmp_path / "x.safetensors", header, bytes(16))) as reader:
        assert reader.read("e").shape == (0, 3)


def test_a_header_larger_than_any_models(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 60_000_000) + b"{")
        file.truncate(60_000_100)
    with pytest.raises(ValueError, match=r"x\.safetensors: its header has 60,000,000 bytes, more"):
        open_file(path)


def test_names_that_come_twice_are_found_at_once(tmp_path):
    header = {"__metadata__": {}}
    for i in range(30_000):
        header[f"module.{i}"] = entry(4 * i, 4 * i + 4)
        header[f"_orig_mod.module.{i}"] = entry(120_000 + 4 * i, 120_000 + 4 * i + 4)
    path = safetensors(tmp_path / "x.safetensors", header, bytes(240_000))
    with pytest.raises(ValueError, match="twice"):
        open_file(path)


@pytest.mark.parametrize(
    "file",
    ["/etc/passwd", "../x.safetensors", "a/b.safetensors", "..", "", "x.safetensors.index.json", 3],
)
def test_an_index_names_files_beside_it(tmp_path, file):
    index = tmp_path / "x.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ValueError, match=r"plain name|another index|not there"):
        open_file(index)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "{", "\ud83d"])
def test_settings_that_are_none(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"config\.json: not (JSON|a JSON object)"):
        read_settings(path)


def test_settings_larger_than_any_models(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ValueError, match="more than 16,777,216 bytes"):
        read_settings(path)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "x.bv", [("t", np.ones((2, 3), np.float32))])


def rewrite(folder, **changed):
    path = folder / "params~t" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chunks": [10**9, 3]}, "no readable .zarray .*chunks of"),
        ({"chunks": [2, 4]}, "no readable .zarray .*chunks of"),
        ({"chunks": [0, 3]}, "no readable .zarray .*chunks of"),
        ({"chunks": [2]}, "no readable .zarray .*no sizes"),
        ({"chunks": None}, "no readable .zarray .*no sizes"),
        ({"shape": [-2, -3]}, "no readable .zarray .*no sizes"),
        ({"shape": [10**6, 10**6], "chunks": [1, 1]}, "claims to hold"),
        ({"dtype": "|O"}, "no readable .zarray .*dtype"),
        ({"dtype": [["a", "<f4"]]}, "no readable .zarray .*dtype"),
        ({"dtype": "<f16"}, "no readable .zarray|damaged"),
        ({"compressor": {"id": "bz2", "level": 1}}, "no readable .zarray .*compressed by 'bz2'"),
        ({"compressor": 3}, "no readable .zarray"),
        ({"compressor": {"id": ["zstd"]}}, "no readable .zarray"),
        ({"zarr_format": 3}, "damaged or incomplete"),
        ({"fill_value": "x" * 100}, "damaged or incomplete"),
        ({"filters": [{"id": "delta"}]}, "damaged or incomplete"),
        ({"dtype": "<f8"}, "damaged or incomplete"),
    ],
    ids=str,
)
def test_headers_of_zarr(folder, changed, message):
    rewrite(folder, **changed)
    with pytest.raises(ValueError, match=message) as error, FolderReader(folder) as reader:
        reader.read("t")
    assert "\n" not in str(error.value)


def test_a_header_of_zarr_nested_too_deeply(folder):
    (folder / "params~t" / ".zarray").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        FolderReader(folder)


def test_chunks_of_zarr_unpack_to_what_their_header_says(folder):
    (chunk,) = (path for path in (folder / "params~t").iterdir() if path.name != ".zarray")
    # A frame without its size: blocks that repeat one byte 131,072 times.
    block = (1 << 1 | 131_072 << 3).to_bytes(3, "little") + b"\0"
    last = (1 | 1 << 1 | 131_072 << 3).to_bytes(3, "little") + b"\0"
    chunk.write_bytes(struct.pack("<IBB", 0xFD2FB528, 0, 0x58) + block * 20_000 + last)
    with FolderReader(folder) as reader, pytest.raises(ValueError, match="unpacks to more than 24"):
        reader.read("t")
    rewrite(folder, compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1})
    chunk.write_bytes(b"\2\1\x21\4" + struct.pack("<III", 2**31 - 1, 2**16, 16))
    with FolderReader(folder) as reader, pytest.raises(ValueError, match="unpacks to more than 24"):
        reader.read("t")
    rewrite(folder, compressor={"id": "zlib", "level": 5})
    chunk.write_bytes(zlib.compress(bytes(100 << 20)))
    with FolderReader(folder) as reader, pytest.raises(ValueError, match="unpacks to more than 24"):
        reader.read("t")


@pytest.mark.parametrize("kind", ["zstd", "blosc", "zlib", None])
def test_chunks_as_others_pack_them_are_read(tmp_path, kind):
    import tensorstore

    values = np.random.default_rng(0).standard_normal((300, 700)).astype(np.float32)
    member = tmp_path / "params~t"
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(member)},
        "metadata": {
            "shape": [300, 700], "chunks": [128, 700], "dtype": "<f4",
            "compressor": {"id": kind} if kind else None,
        },
    }  # fmt: skip
    tensorstore.open(spec, create=True).result().write(values).result()
    with open_big_vision(tmp_path) as reader:
        np.testing.assert_array_equal(reader.read("t"), values)


def test_a_stack_of_more_layers_than_any_model_has(tmp_path):
    from siglip_jax.weights.routes import reform

    name = "img/Transformer/encoderblock/LayerNorm_0/bias"
    for shape in ((10**9, 1), (), (0, 4)):
        with pytest.raises(ValueError, match="expected layers first, at most 1,024"):
            reform({name: shape}, scan_image=False, scan_text=False)


def test_a_named_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not exist"):
        open_file(tmp_path / "x.safetensors")
