"""A batch in pieces on a CPU, weights that lie in a mapped file, memory that is kept."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from towers import case

from siglip_jax.allocator import keep_freed_memory
from siglip_jax.config import Execution
from siglip_jax.converters.safetensors_file import SafetensorsReader, SafetensorsWriter
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, make_mesh
from siglip_jax.programs.towers import in_pieces
from siglip_jax.weights.reader import Header


def program(tiny, devices=1, **execution):
    mesh = make_mesh(jax.devices()[:devices])
    run = dataclasses.replace(tiny.execution, **execution)
    return Program(SiglipModel(tiny.config, run), mesh)


@pytest.mark.parametrize(
    ("batch", "size", "pieces"), [(6, 4, 2), (7, 4, 7), (4, 4, 1), (3, None, 1)]
)
def test_pieces_are_of_one_size_and_in_order(batch, size, pieces):
    seen = []

    def double(x):
        seen.append(x.shape[0])
        return 2 * x

    x = jnp.arange(batch * 2.0, dtype=jnp.float32).reshape(batch, 2)
    np.testing.assert_array_equal(in_pieces(double, x, size), 2 * x)
    assert set(seen) == {batch // pieces}


@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_pieces_give_the_same_embeddings(name):
    tiny = case(name)
    given = {
        "images": jax.tree.map(lambda x: np.concatenate([x, x])[:4], tiny.images),
        "texts": np.concatenate([tiny.texts, tiny.texts])[:4],
    }
    for tower, x in given.items():
        whole = getattr(program(tiny, micro_batch=4), tower)(tiny.params, x)
        two = getattr(program(tiny, micro_batch=2), tower)(tiny.params, x)
        np.testing.assert_allclose(two, whole, rtol=0, atol=1e-6)


def test_a_cpu_works_in_pieces_and_a_mesh_does_not():
    tiny = case("loop")
    ids = jax.ShapeDtypeStruct((4096, tiny.config.text.length), np.int32)

    def lowered(built):
        return built.texts.lower(built.abstract_params(), ids).as_text()

    assert "stablehlo.while" in lowered(program(tiny))
    assert "stablehlo.while" not in lowered(program(tiny, micro_batch=4096))
    assert "stablehlo.while" not in lowered(program(tiny, devices=8))


def test_micro_batch_must_be_positive():
    with pytest.raises(
        ValueError, match="Execution: micro_batch must be a positive integer, got 0"
    ):
        Execution(micro_batch=0)


def test_large_tensors_are_mapped_and_outlive_their_reader(tmp_path):
    tensors = {
        "b": np.ones(1, np.float32),
        "a/kernel": np.arange(64, dtype=np.float32).reshape(4, 16),
        "c/kernel": np.arange(32, dtype=np.float16),
    }
    headers = {name: Header(x.shape, x.dtype) for name, x in tensors.items()}
    with SafetensorsWriter(tmp_path / "w.safetensors", headers) as writer:
        for name, x in tensors.items():
            writer.write(name, x)
    with SafetensorsReader(tmp_path / "w.safetensors") as reader:
        read = {name: reader.read(name) for name in tensors}
    for name, x in tensors.items():
        np.testing.assert_array_equal(read[name], x)
        assert read[name].ctypes.data % 64 == 0
    # Both kernels are in one mapping; jax takes such memory as it is.
    pointer = jax.device_put(read["a/kernel"], jax.devices()[0]).unsafe_buffer_pointer()
    assert pointer == read["a/kernel"].ctypes.data
    # Writing changes a private copy of the page, never the file.
    read["a/kernel"][:] = 0
    with SafetensorsReader(tmp_path / "w.safetensors") as reader:
        np.testing.assert_array_equal(reader.read("a/kernel"), tensors["a/kernel"])


def test_a_mapped_file_that_shrinks_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    x = np.zeros(4096, np.float32)
    with SafetensorsWriter(path, {"x": Header(x.shape, x.dtype)}) as writer:
        writer.write("x", x)
    with SafetensorsReader(path) as reader:
        with path.open("r+b") as file:
            file.truncate(500)
        with pytest.raises(ValueError, match=r"w\.safetensors ends in the middle of x; fetch"):
            reader.read("x")


def test_another_library_reads_what_is_laid_out_for_mapping(tmp_path):
    numpy_file = pytest.importorskip("safetensors.numpy")
    tensors = {"b": np.ones(3, np.float32), "a": np.arange(16, dtype=np.float32)}
    headers = {name: Header(x.shape, x.dtype) for name, x in tensors.items()}
    with SafetensorsWriter(tmp_path / "w.safetensors", headers) as writer:
        for name, x in tensors.items():
            writer.write(name, x)
    for name, x in numpy_file.load_file(tmp_path / "w.safetensors").items():
        np.testing.assert_array_equal(x, tensors[name])


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_freed_memory_is_kept():
    """Page faults of using a large block again, in a process of its own."""
    code = (
        "import ctypes, resource, sys\n"
        "from siglip_jax.allocator import keep_freed_memory\n"
        "if sys.argv[1] == 'keep': assert keep_freed_memory()\n"
        "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p\n"
        "c.malloc.argtypes = [ctypes.c_size_t]; c.free.argtypes = [ctypes.c_void_p]\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def use():\n"
        "    before, p = faults(), c.malloc(64 << 20)\n"
        "    ctypes.memset(p, 1, 64 << 20); c.free(p)\n"
        "    return faults() - before\n"
        "use(); print(use())\n"
    )

    def faults(how):
        done = subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < 0.2 * faults("default")
