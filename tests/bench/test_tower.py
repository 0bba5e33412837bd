"""Timing a tower, and what it is compared with."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from towers import case

from siglip_jax.bench import TowerSpeed, matrix_peak, measure_tower, random_weights
from siglip_jax.bench.tower import random_batch
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel, check_patches
from siglip_jax.preprocessing import Patches
from siglip_jax.programs import FSDP, Program, make_mesh
from siglip_jax.programs.memory import device_memory


def program(name="loop", devices=1, rules=None, **execution):
    mesh = make_mesh(jax.devices()[:devices])
    model = SiglipModel(case(name).config, Execution(**execution))
    return Program(model, mesh, rules) if rules else Program(model, mesh)


def test_latency_is_of_steps_and_its_tail_is_one_of_them():
    latencies = (0.4, 0.1, 0.2, 0.1, 0.1)
    speed = TowerSpeed(
        tower="images",
        batch=8,
        compile_seconds=1,
        temporary=None,
        items_per_second=50.0,
        latencies=latencies,
        flops=3,
    )
    assert (speed.p50, speed.p95, speed.flops_per_second) == (0.1, 0.4, 150)


@pytest.mark.parametrize(
    ("name", "tower"), [("loop", "images"), ("loop", "texts"), ("naflex", "images")]
)
def test_a_tower_is_measured(name, tower):
    built = program(name)
    speed = measure_tower(built, random_weights(built), tower, 4, seconds=0)
    assert (speed.tower, speed.batch) == (tower, 4)
    assert speed.items_per_second > 0 and len(speed.latencies) == 3 and speed.flops > 0


def test_weights_lie_where_the_program_wants_them_and_give_finite_embeddings():
    built = program(devices=8, rules=FSDP, dtype="bfloat16", text_dtype="bfloat16")
    params = random_weights(built)
    where = flatten_dict(built.params_sharding)
    for name, leaf in flatten_dict(params).items():
        assert leaf.sharding == where[name] and float(np.std(leaf)) < 0.1, name
    z = built.images(params, random_batch(built, "images", 8))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=2e-2)


def test_batches_are_what_a_model_takes():
    built = program("naflex")
    patches = random_batch(built, "images", 2)
    assert isinstance(patches, Patches)
    check_patches(jax.tree.map(np.asarray, patches), built.model.config.vision)
    ids = np.asarray(random_batch(built, "texts", 2))
    assert ids.max() < built.model.config.text.vocab_size and ids.dtype == np.int32


def test_the_peak_counts_every_device():
    mesh = make_mesh(jax.devices())
    assert matrix_peak(mesh, "bfloat16", "default", sides=(8, 16), repeats=1) > 0


def test_memory_is_the_device_s_own_account_where_it_keeps_one():
    class Device:
        platform = "gpu"

        def __init__(self, **stats):
            self.stats = stats

        def memory_stats(self):
            return self.stats

    a = Device(peak_bytes_in_use=5, bytes_in_use=6, bytes_limit=100)
    b = Device(peak_bytes_in_use=7, bytes_limit=90)
    assert device_memory([a, b]) == (90, 6, 7) and device_memory([a, b]).free == 84
    assert device_memory([Device()]) == (None, None, None)
    here = device_memory(jax.devices()[:1])
    assert here.peak > 10_000_000 and here.limit is None and here.free is None
