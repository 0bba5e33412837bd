"""The pickle in a PyTorch file: nothing of Python is within its reach, and its work is bounded."""

import pickle
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
from towers import FIXTURES

from siglip_jax.converters.files import open_file
from siglip_jax.converters.torch_file import TorchReader
from siglip_jax.converters.torch_pickle import Refused, load

WHOLE = FIXTURES / "torch_files" / "state_dict.pt"


def contents():
    with zipfile.ZipFile(WHOLE) as source:
        return {name: source.read(name) for name in source.namelist()}


def archive(path, method=zipfile.ZIP_STORED, **changed):
    """`state_dict.pt` with other members, by the ends of their names."""
    members = contents()
    (root,) = {name.split("/")[0] for name in members}
    members |= {f"{root}/{name.replace('__', '/')}": data for name, data in changed.items()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def with_pickle(path, change):
    data = next(data for name, data in contents().items() if name.endswith("data.pkl"))
    return archive(path, **{"data.pkl": change(data)})


def set_state(name, size):
    """Gives a type of a storage another state; before the file's own pickle."""
    state = pickle.dumps((3, "<", None, None, None, size, 1, 64), protocol=2)[2:-1]
    return lambda data: b"\x80\x02ctorch\n" + name + b"\n" + state + b"b0" + data[2:]


@pytest.mark.parametrize("name", [b"BFloat16Storage", b"FloatStorage", b"HalfStorage"])
@pytest.mark.parametrize("size", [0, 1, 10**6])
def test_no_type_is_given_another_state(tmp_path, name, size):
    before = (np.dtype(ml_dtypes.bfloat16).itemsize, np.dtype("<f4").itemsize)
    with pytest.raises(ValueError, match=r"its pickle asks for .*; refused"):
        open_file(with_pickle(tmp_path / "x.bin", set_state(name, size)))
    assert (np.dtype(ml_dtypes.bfloat16).itemsize, np.dtype("<f4").itemsize) == before == (2, 4)
    ones = np.ones(100_000, np.float32).astype(ml_dtypes.bfloat16)
    assert ones.nbytes == 200_000 and (ones.astype(np.float32) == 1).all()


def test_what_is_loaded_are_plain_values():
    def walk(value):
        yield type(value)
        if isinstance(value, dict):
            for pair in value.items():
                for part in pair:
                    yield from walk(part)
        elif isinstance(value, list | tuple):
            for part in value:
                yield from walk(part)

    for name in ("state_dict.pt", "training.pt"):
        with zipfile.ZipFile(WHOLE.with_name(name)) as file:
            member = next(n for n in file.namelist() if n.endswith("data.pkl"))
            kinds = {kind.__name__ for kind in walk(load(file.read(member)))}
        plain = {"dict", "list", "tuple", "str", "int", "float", "bool", "NoneType"}
        assert kinds - plain <= {"Tensor", "Storage", "_Inert"}


@pytest.mark.parametrize(
    "instruction",
    [b"i", b"o", b"I", b"L", b"F", b"S", b"V", b"P", b"g", b"p", b"l", b"d", b"0", b"1", b"2",
     b"\x82", b"\x83", b"\x84", b"\x8b", b"\x8e", b"\x92", b"\x96", b"\x97", b"\x98"],
)  # fmt: skip
def test_instructions_that_no_weights_need(instruction):
    with pytest.raises(Refused, match="the instruction"):
        load(b"\x80\x02}" + instruction + b"0\n\0\0\0.")


HOSTILE = {
    "memo": b"\x80\x02}r" + struct.pack("<I", 2**28) + b"r" + struct.pack("<I", 2**32 - 1) + b".",
    "marks": b"\x80\x02" + b"(" * 100_000 + b".",
    "instructions": b"\x80\x02" + b"}" * 5_000_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 500_000 + b".",
    "deep key": b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s.",
    "long text": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b".",
    "longer text": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b".",
    "itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "call of a call": b"\x80\x02ctorch\nSize\n)R)R.",
    "call of a string": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a state of a tuple": b"\x80\x02)}b.",
    "nothing": b"\x80\x02.",
    "below": b"\x80\x02e.",
    "state of nothing": b"\x80\x02Nb.",
    "a name without end": b"\x80\x02c" + b"a" * 10_000 + b".",
    "an odd number": b"\x80\x02}(K\x01u.",
    "storage": b"\x80\x02(K\x01K\x02K\x03K\x04K\x05tQ.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_one_line_and_little_work(tmp_path, name):
    path = archive(tmp_path / "x.bin", **{"data.pkl": HOSTILE[name]})
    with pytest.raises(ValueError, match=r"x\.bin") as error:
        TorchReader(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_members_that_unpack_to_far_more_than_they_take(tmp_path):
    big = bytes(200 << 20)
    for member in ("byteorder", "data__99", "version"):
        path = archive(tmp_path / "x.bin", zipfile.ZIP_DEFLATED, **{member: big})
        with pytest.raises(ValueError, match=r"claims to hold .* which no weights do"):
            TorchReader(path)


def one_tensor(path, member, size, *, offset=0, shape=(2,), stride=(1,)):
    """A file of a tensor with the content `member`."""
    pid = ("storage", b"TYPE", "0", "cpu", size)

    def text(value):
        if value == b"TYPE":
            return b"ctorch\nFloatStorage\n"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(text, value)) + b"t"
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value)) + value.encode()
        whole = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + whole

    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + text(pid) + b"Q"
    tensor += text(offset) + text(shape) + text(stride) + b"\x89NtR"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", b"\x80\x02}" + text("w") + tensor + b"s.")
        file.writestr("x/data/0", member)
    return path


def test_a_small_tensor_of_a_large_storage_takes_its_own_memory(tmp_path):
    rows = np.arange(1 << 20, dtype=np.float32)
    path = one_tensor(tmp_path / "x.pt", rows.tobytes(), rows.size, offset=1000, shape=(2, 2),
                      stride=(10, 3))  # fmt: skip
    with TorchReader(path) as reader:
        tensor = reader.read("w")
        np.testing.assert_array_equal(tensor, [[1000, 1003], [1010, 1013]])
        np.testing.assert_array_equal(reader.read("w"), tensor)


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": (10**9, 10**9), "stride": (0, 0)},
        {"shape": (-2, -2), "stride": (1, 1)},
        {"shape": (2,), "stride": (-1,)},
        {"shape": (2, 2)},
        {"offset": -1},
        {"offset": 2**60},
        {"size": 2**60},
        {"size": -4},
        {"shape": (1,) * 40, "stride": (1,) * 40},
        {"shape": (0, 2**60), "stride": (1, 1)},
    ],
    ids=str,
)
def test_sizes_that_are_none(tmp_path, changed):
    options = {"size": 4} | changed
    path = one_tensor(tmp_path / "x.pt", bytes(16), options.pop("size"), **options)
    with pytest.raises(ValueError, match=r"x\.pt: w is damaged or incomplete"):
        TorchReader(path)


def test_one_compressed_storage_is_not_unpacked_for_every_name(tmp_path):
    rows = np.zeros(4 << 20, np.float32)
    path = one_tensor(tmp_path / "x.pt", rows.tobytes(), rows.size)
    with zipfile.ZipFile(path) as file:
        data = file.read("x/data.pkl")
    start = data.index(b"X\x01\x00\x00\x00w")
    entry = data[start:-2]
    many = b"".join(
        entry.replace(b"X\x01\x00\x00\x00w", b"X\x05\x00\x00\x00" + b"%05d" % i) + b"s"
        for i in range(200)
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", b"\x80\x02}" + many + b".")
        file.writestr("x/data/0", rows.tobytes())
    with pytest.raises(ValueError, match="claims to hold"):
        TorchReader(path)


def test_nothing_outside_the_file_is_touched_by_mutations():
    """Only that loading returns or raises, in pure Python: no crash can come of it."""
    generator = np.random.default_rng(0)
    (data,) = (data for name, data in contents().items() if name.endswith("data.pkl"))
    for _ in range(2000):
        wrong = bytearray(data)
        for _ in range(generator.integers(1, 6)):
            wrong[generator.integers(len(wrong))] = generator.integers(256)
        try:
            load(bytes(wrong))
        except Exception as error:
            assert not isinstance(error, MemoryError)
    assert zlib.crc32(np.ones(4, ml_dtypes.bfloat16).tobytes()) == zlib.crc32(b"\x80\x3f" * 4)
