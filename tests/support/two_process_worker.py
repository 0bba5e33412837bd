"""One of the processes of test_two_processes: address, rank, output folder."""

import sys
from pathlib import Path

import jax
import numpy as np

address, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=rank)

from towers import case  # noqa: E402

from siglip_jax.models import SiglipModel  # noqa: E402
from siglip_jax.programs import (  # noqa: E402
    FSDP,
    REPLICATED,
    make_mesh,
    sharding,
)
from siglip_jax.scoring import Scorer  # noqa: E402

sharding.fsdp_spec.__defaults__ = (1,)
tiny = case("loop")
images = np.concatenate([np.asarray(tiny.images)] * 3)
for name, rules in (("replicated", REPLICATED), ("fsdp", FSDP)):
    scorer = Scorer(
        SiglipModel(tiny.config, tiny.execution),
        tiny.params,
        mesh=make_mesh(model=2),
        rules=rules,
        batch_size=8,
    )
    zimg, ztxt = scorer.embed_images(images), scorer.embed_texts(np.asarray(tiny.texts))
    # What lies on the devices of all processes, and what this one alone holds.
    rows = jax.NamedSharding(scorer.mesh, jax.P("data"))
    split = jax.make_array_from_callback(images.shape, rows, lambda index: images[index])
    for there in (split, jax.device_put(images, jax.local_devices()[0])):
        z = scorer.embed_images(there, as_jax=True)
        assert z.sharding.device_set == set(jax.devices())
        np.testing.assert_array_equal(np.asarray(z), zimg)
    np.savez(
        folder / f"{rank}.{name}.npz",
        devices=jax.device_count(),
        local=jax.local_device_count(),
        zimg=zimg,
        ztxt=ztxt,
        logits=scorer.logits(zimg, ztxt),
    )
