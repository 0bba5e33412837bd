"""The .npz reader and writer: round trips, other people's files, and bad ones."""

import io
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from siglip_jax.weights import npz
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.npz import NpzReader, write_npz
from siglip_jax.weights.reader import Header

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ONES = {"img/pos_embedding": np.ones((1, 4, 8), np.float32), "t": np.ones(1, np.float32)}


def read_all(path):
    with open_big_vision(path) as reader:
        return {name: reader.read(name) for name in reader.shapes}


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def tensors(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    dtype = draw(st.sampled_from(["f4", "f2", "f8", BFLOAT16]))
    bits = draw(st.integers(0, 2**32 - 1))
    raw = np.random.default_rng(bits).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


NAMES = st.text("abcxyz_0123", min_size=1, max_size=6)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(PATHS, tensors(), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from(["", "params/"]),
)
def test_round_trip_of_any_bits(tmp_path_factory, items, compressed, prefix):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    write_npz(path, items.items(), compressed=compressed, prefix=prefix)
    with NpzReader(path) as reader:
        assert reader.shapes == {k: Header(v.shape, v.dtype) for k, v in items.items()}
        assert reader.ignored == ()
        for name, array in items.items():
            assert same_bits(reader.read(name), array)


def test_the_file_is_what_numpy_writes(tmp_path):
    items = {**ONES, "posemb": np.arange(6, dtype=BFLOAT16)}
    write_npz(tmp_path / "ours.npz", items.items(), prefix="")
    np.savez(tmp_path / "numpy.npz", **items)
    with (
        zipfile.ZipFile(tmp_path / "ours.npz") as ours,
        zipfile.ZipFile(tmp_path / "numpy.npz") as numpys,
    ):
        assert ours.namelist() == numpys.namelist()
        for name in ours.namelist():
            assert ours.read(name) == numpys.read(name)
    with np.load(tmp_path / "ours.npz") as loaded:
        assert loaded["posemb"].dtype.str == "|V2"
    assert same_bits(read_all(tmp_path / "ours.npz")["posemb"], items["posemb"])


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        np.arange(24).reshape(2, 3, 4).astype(">f4"),
        np.asfortranarray(np.arange(6).reshape(2, 3).astype(">f8")),
    ],
    ids=["fortran", "big-endian", "both"],
)
def test_other_memory_layouts(tmp_path, array):
    np.savez(tmp_path / "x.npz", a=array)
    read = read_all(tmp_path / "x.npz")["a"]
    assert read.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("stored", "parameters", "ignored"),
    [
        (["params/t", "opt/0/mu/t", "chrono/accum", "note"], ["t"], 3),
        (["opt/target/t", "opt/state/step", "extra"], ["t"], 2),
        (["t", "img/pos_embedding", "opt/count", "chrono/x"], ["img/pos_embedding", "t"], 2),
    ],
)
def test_what_is_a_parameter(tmp_path, stored, parameters, ignored):
    # The ignored ones may be anything, pickles included: they are never opened.
    items = {n: np.ones(2, np.float32) for n in stored}
    items |= {n: np.array({}) for n in stored if n.startswith("chrono")}
    np.savez(tmp_path / "x.npz", **items)
    with NpzReader(tmp_path / "x.npz") as reader:
        assert sorted(reader.shapes) == parameters
        assert len(reader.ignored) == ignored
        assert set(reader.ignored) < set(stored)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, "V3"), r"x\.npz: w holds raw bytes \(\|V3\), not numbers"),
        (np.zeros(3, "V1"), r"x\.npz: w holds raw bytes \(\|V1\), not numbers"),
        (np.zeros(3, [("a", "i1"), ("b", "i1")]), r"w holds raw bytes .* not numbers"),
        (np.array([{}]), r"x\.npz: w holds pickled Python objects, not numbers"),
    ],
)
def test_refused_dtypes(tmp_path, array, message):
    np.savez(tmp_path / "x.npz", w=array)
    with pytest.raises(ValueError, match=message):
        NpzReader(tmp_path / "x.npz")


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.npz is empty; fetch it again"),
        (b"<!DOCTYPE html><html>Not found", "is not a .npz file: it begins with b'<!DOCTYPE html"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
        (npy(np.ones(3)), r"is a single array \(.npy\), not a .npz"),
        (b"PK\x03\x04 and then the connection broke", "is cut short or damaged"),
        (b"PK\x05\x06" + bytes(18), r"holds no parameters \(0 entries\)"),
    ],
)
def test_files_that_are_no_npz(tmp_path, content, message):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        open_big_vision(path)
    assert "x.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file(tmp_path, share):
    path = tmp_path / "x.npz"
    write_npz(path, ONES.items())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"x\.npz is cut short or damaged .*; fetch it again"):
        open_big_vision(path)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("archive/data.pkl", "")
    with pytest.raises(ValueError, match=r"no \.npz: it holds 'archive/data\.pkl'"):
        NpzReader(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"is a folder, not a \.npz file"):
        NpzReader(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_is_noticed(tmp_path, compressed):
    path = tmp_path / "x.npz"
    array = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    write_npz(path, [("w", array)], compressed=compressed)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with NpzReader(path) as reader, pytest.raises(ValueError, match=r"x\.npz: w is damaged \("):
        reader.read("w")


def test_a_flipped_bit_in_a_header_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, [("w", np.ones(5000, np.float32))])
    content = path.read_bytes()
    # Still a header that says the same: only the checksum can tell.
    assert content.count(b", }  ") == 1
    path.write_bytes(content.replace(b", }  ", b",  } "))
    with NpzReader(path) as reader, pytest.raises(ValueError, match=r"w is damaged \(Bad CRC-32"):
        reader.read("w")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_more_than_is_read_at_once(tmp_path, monkeypatch, method):
    monkeypatch.setattr(npz, "_CHUNK", 1000)
    arrays = {f"w{n}": np.random.default_rng(n).standard_normal(n) for n in (0, 124, 125, 126, 999)}
    # What others write: names with extra fields and comments, and something before it all.
    (tmp_path / "x.npz").write_bytes(b"before")
    with zipfile.ZipFile(tmp_path / "x.npz", "a", method) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type, info.extra, info.comment = method, b"\xfe\xca\3\0abc", b"mine"
            archive.writestr(info, npy(array))
    read = read_all(tmp_path / "x.npz")
    assert all(same_bits(read[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("keep", [0, 20, 60, 200, 5000])
def test_a_file_cut_short_while_it_is_open(tmp_path, keep):
    path = tmp_path / "x.npz"
    write_npz(path, [("w", np.zeros(50_000, np.float32))])
    with NpzReader(path) as reader:
        os.truncate(path, keep)
        with pytest.raises(ValueError, match=r"x\.npz: w is damaged \(it ends early\)"):
            reader.read("w")


@pytest.mark.parametrize("extra", [b"", b"1234"])
def test_a_tensor_shorter_or_longer_than_it_says(tmp_path, extra):
    content = npy(np.ones(10, np.float32))
    content = content + extra if extra else content[:-4]
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(ValueError, match=r"w is damaged \(it says \(10,\) float32, which is 40"):
        NpzReader(tmp_path / "x.npz")


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", "hello, this is no array")
    with pytest.raises(ValueError, match=r"x\.npz: w is damaged \(the magic string"):
        NpzReader(tmp_path / "x.npz")


def failing():
    yield "t", np.ones(1, np.float32)
    raise KeyboardInterrupt


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, ONES.items())
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_npz(path, failing())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("x.npz", [], "there are no tensors to write"),
        ("x.npz", [("t", np.ones(1))] * 2, "t is given twice"),
        ("x.npz", [("t", np.ones(1, int))], "t is int64, not a float"),
        ("x.npy", [("t", np.ones(1))], r"must be named \.npz"),
        ("no/x.npz", [("t", np.ones(1))], "the folder .*no does not exist"),
    ],
)
def test_what_is_not_written(tmp_path, name, items, message):
    with pytest.raises(ValueError, match=message):
        write_npz(tmp_path / name, items)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_file(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, ONES.items())
    with open_big_vision(f"{path}:img") as reader:
        assert list(reader.shapes) == ["pos_embedding"]
        assert reader.subtree == "img"
        assert same_bits(reader.read("pos_embedding"), ONES["img/pos_embedding"])
    with pytest.raises(ValueError, match=r"x\.npz has no subtree 'text'; there is img"):
        open_big_vision(f"{path}:text")


def test_a_part_of_a_file_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz("x.npz", ONES.items())
    assert list(read_all("x.npz:img")) == ["pos_embedding"]


def test_a_colon_in_a_name_that_exists_is_a_colon(tmp_path):
    write_npz(tmp_path / "run:img.npz", ONES.items())
    assert read_all(tmp_path / "run:img.npz").keys() == ONES.keys()
    assert list(read_all(f"{tmp_path}/run:img.npz:img")) == ["pos_embedding"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("siglip2_b16_244.npz", r"does not exist; did you mean .*siglip2_b16_224\.npz\?"),
        ("siglip2_b16_244.npz:img", r"244\.npz does not exist; did you mean .*b16_224\.npz\?"),
        ("unlike-anything", "unlike-anything does not exist$"),
        ("no/x.npz", "x.npz does not exist; there is no folder .*no$"),
    ],
)
def test_misspelled_files(tmp_path, name, message):
    write_npz(tmp_path / "siglip2_b16_224.npz", ONES.items())
    with pytest.raises(ValueError, match=message):
        open_big_vision(tmp_path / name)


def test_remote_files():
    with pytest.raises(ValueError, match="not on this machine: download it"):
        open_big_vision("gs://big_vision/siglip2/siglip2_b16_224.npz:img")
