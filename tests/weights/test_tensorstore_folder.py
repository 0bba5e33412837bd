"""big_vision's tensorstore folders: pointers, round trips, and damage."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from paths import SHARED
from towers import case

from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.reader import Header
from siglip_jax.weights.tensorstore_folder import FolderReader, write_folder

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ONES = {"img/pos_embedding": np.ones((1, 4, 8), np.float32), "t": np.zeros(1, BFLOAT16)}
GOLDENS = SHARED / "goldens" / "big_vision"


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "checkpoint.bv", ONES.items(), step=123)
    return tmp_path


@st.composite
def tensors(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5))
    dtype = draw(st.sampled_from(["f4", "f2", "f8", BFLOAT16]))
    seed = draw(st.integers(0, 2**32 - 1))
    raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.sampled_from(["t", "a/b", "a/c", "a/d_0/e"]), tensors(), min_size=1))
def test_round_trip_of_any_bits(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("bv") / "x.bv"
    write_folder(path, items.items())
    with open_big_vision(path) as reader:
        assert reader.shapes == {k: Header(v.shape, v.dtype) for k, v in items.items()}
        for name, array in items.items():
            read = reader.read(name)
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "name",
    ["checkpoint.bv", "", "checkpoint.bv-LAST", "checkpoint.bv-000000123"],
    ids=["name", "folder", "pointer", "step"],
)
def test_ways_to_name_it(folder, name):
    with open_big_vision(folder / name) as reader:
        assert reader.shapes.keys() == ONES.keys()
        assert reader.path.endswith("checkpoint.bv-000000123")


def test_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in (".", "", "checkpoint.bv"):
        with open_big_vision(name) as reader:
            assert reader.shapes.keys() == ONES.keys()


def test_what_is_written(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint.bv-000000123",
        "checkpoint.bv-LAST",
    ]
    assert (folder / "checkpoint.bv-LAST").read_text() == "000000123"
    posemb = folder / "checkpoint.bv-000000123" / "params~img~pos_embedding"
    assert sorted(p.name for p in posemb.iterdir()) == [".zarray", "0.0.0"]
    assert json.loads((posemb / ".zarray").read_text()) == {
        "chunks": [1, 4, 8],
        "compressor": {"id": "zstd", "level": 1},
        "dimension_separator": ".",
        "dtype": "<f4",
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": [1, 4, 8],
        "zarr_format": 2,
    }


def test_the_pointer_moves_to_a_newer_step(folder):
    write_folder(folder / "checkpoint.bv", [("t", np.float32([7]))], step=124)
    with open_big_vision(folder / "checkpoint.bv") as reader:
        assert list(reader.shapes) == ["t"]
    with open_big_vision(folder / "checkpoint.bv-000000123") as reader:
        assert reader.shapes.keys() == ONES.keys()


def test_a_temporary_step(folder):
    step = folder / "checkpoint.bv-000000123"
    step.rename(folder / "checkpoint.bv-000000123-tmp")
    (folder / "checkpoint.bv-LAST").write_text("000000123-tmp\n")
    with open_big_vision(folder / "checkpoint.bv") as reader:
        assert reader.shapes.keys() == ONES.keys()


def test_training_state_is_ignored_and_reported(folder):
    step = folder / "checkpoint.bv-000000123"
    shutil.copytree(step / "params~t", step / "opt~0~mu~t")
    (step / "notes.txt").write_text("no array")
    with open_big_vision(folder) as reader:
        assert reader.shapes.keys() == ONES.keys()
        assert reader.ignored == ("opt/0/mu/t",)


def test_a_part_of_a_folder(folder):
    with open_big_vision(f"{folder / 'checkpoint.bv'}:img") as reader:
        assert list(reader.shapes) == ["pos_embedding"]


def test_the_folder_big_vision_wrote():
    if not GOLDENS.exists():
        pytest.skip("needs ../shared/goldens/big_vision")
    expected = case("v1_loop", GOLDENS)
    with open_big_vision(GOLDENS / "tensorstore") as reader, open_big_vision(expected.path) as npz:
        assert reader.shapes.keys() == npz.shapes.keys()
        assert reader.ignored == ("chrono/note", "opt/count", "opt/mu/bias", "opt/mu/kernel")
        # Training in bfloat16 leaves this one parameter in bfloat16.
        assert reader.shapes["img/pos_embedding"] == Header((1, 16, 48), BFLOAT16)
        for name in reader.shapes:
            read, same = reader.read(name), npz.read(name)
            assert read.tobytes() == same.astype(read.dtype).tobytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda array: (array / "0").unlink(), r"params~t is damaged or incomplete \("),
        (lambda array: (array / "0").write_bytes(b"junk"), r"params~t is damaged or incomplete"),
        (lambda array: (array / "0").write_bytes(b""), r"params~t is damaged or incomplete"),
    ],
    ids=["chunk gone", "chunk garbled", "chunk empty"],
)
def test_damaged_arrays(folder, damage, message):
    damage(folder / "checkpoint.bv-000000123" / "params~t")
    with open_big_vision(folder) as reader, pytest.raises(ValueError, match=message) as error:
        reader.read("t")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"shape": [1], "dtype": "no"}'])
def test_damaged_headers(folder, content):
    zarray = folder / "checkpoint.bv-000000123" / "params~t" / ".zarray"
    zarray.unlink()
    if content is not None:
        zarray.write_text(content)
    with pytest.raises(ValueError, match=r"000000123: params~t has no readable \.zarray"):
        open_big_vision(folder)


def test_pointers_that_lead_nowhere(folder):
    pointer = folder / "checkpoint.bv-LAST"
    pointer.write_text("000000200")
    with pytest.raises(ValueError, match=r"LAST points to checkpoint\.bv-000000200, which is not"):
        open_big_vision(folder / "checkpoint.bv")
    pointer.write_text("../elsewhere")
    with pytest.raises(ValueError, match=r"is no pointer: expected a step .*'\.\./elsewhere'"):
        open_big_vision(folder)
    pointer.unlink()
    with pytest.raises(ValueError, match=r"checkpoint\.bv-LAST does not exist"):
        FolderReader(pointer)
    with pytest.raises(ValueError, match=r"did you mean .*checkpoint\.bv-000000123\?"):
        open_big_vision(folder / "checkpoint.bv")


def test_folders_that_are_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"is no big_vision checkpoint: .* found nothing$"):
        open_big_vision(tmp_path)
    for name in ("config.json", "a", "b", "c"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"found a, b, c and 1 more$"):
        open_big_vision(tmp_path)


def test_a_folder_without_parameters(folder):
    step = folder / "checkpoint.bv-000000123"
    for entry in list(step.iterdir()):
        entry.rename(step / entry.name.replace("params", "opt"))
    with pytest.raises(ValueError, match=r"000000123 holds no parameters: expected .* opt~img~pos"):
        open_big_vision(folder)


def test_several_checkpoints_in_a_folder(folder):
    write_folder(folder / "other.bv", ONES.items())
    with pytest.raises(ValueError, match=r"holds several .*: checkpoint\.bv, other\.bv"):
        open_big_vision(folder)


def failing():
    yield "t", np.ones(1, np.float32)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("items", "step", "message"),
    [
        ([], 0, "there are no tensors to write"),
        ([("t", np.ones(1))] * 2, 0, "t is given twice"),
        ([("a~b", np.ones(1))], 0, "a~b has a '~' in its name"),
        ([("t", np.ones(1, int))], 0, "t is int64, not a float"),
        ([("t", np.ones(1))], 123, "000000123 exists already: remove it or give another step"),
        ([("t", np.ones(1))], 10**9, "step must have at most nine digits"),
        (failing(), 0, None),
    ],
)
def test_what_is_not_written(folder, items, step, message):
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError if message else KeyboardInterrupt, match=message):
        write_folder(folder / "checkpoint.bv", items, step=step)
    assert sorted(folder.rglob("*")) == before
    assert (folder / "checkpoint.bv-LAST").read_text() == "000000123"
