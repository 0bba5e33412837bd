"""From host memory to the device, and how much of it hides behind the model."""

import time

import jax
import numpy as np
from parts.device import describe
from results import Results
from sizes import FAST, config_for
from weights import inputs

from siglip_jax.bench import measure_tower, random_weights
from siglip_jax.models import SiglipModel
from siglip_jax.programs import Program, make_mesh
from siglip_jax.scoring import Scorer

_REPEATS = 5


def run(results: Results) -> None:
    device = describe(results)
    case = results.scale.host
    config, batch = config_for(case), case.batches[0]
    images = inputs(config, "images", batch)
    with results.attempt("host to device"):
        best = min(copied(images, device) for _ in range(_REPEATS))
        results.measured(
            "host to device", bytes=images.nbytes, bytes_per_second=images.nbytes / best
        )
    with results.attempt("overlap"):
        mesh = make_mesh([device])
        program = Program(SiglipModel(config, FAST), mesh)
        params = random_weights(program)
        alone = measure_tower(program, params, "images", batch, seconds=results.scale.seconds)
        scorer = Scorer(SiglipModel(config, FAST), params, mesh=mesh, batch_size=batch)
        count = 2 if results.scale.rehearsal else 40
        many = np.concatenate([images] * count)
        scorer.embed_images(images)
        start = time.perf_counter()
        scorer.embed_images(many)
        rate = len(many) / (time.perf_counter() - start)
        results.measured(
            "Scorer from arrays on the host",
            batch=batch,
            per_second=rate,
            inputs_on_the_device=alone.items_per_second,
            share=rate / alone.items_per_second,
        )


def copied(array: np.ndarray, device: jax.Device) -> float:
    start = time.perf_counter()
    jax.block_until_ready(jax.device_put(array, device))
    return time.perf_counter() - start
