"""One of the processes of test_train_two_processes: address, rank, recipe, folder."""

import os
import signal
import sys
import time
from pathlib import Path

import jax

address, rank, recipe, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=rank)


from siglip_jax.programs import make_mesh, sharding  # noqa: E402
from siglip_jax.training import read_recipe, train  # noqa: E402

sharding.fsdp_spec.__defaults__ = (512,)


def stop_one(progress):
    """One process is told to stop; steps are slowed, so that it gets about before the end."""
    if progress.what == "training" and progress.done >= 5:
        if progress.done == 5 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)


result = train(read_recipe(recipe), folder / "run", mesh=make_mesh(model=2))
split = [leaf for leaf in jax.tree.leaves(result.params) if not leaf.is_fully_addressable]
# Last: a process that was told to stop once cannot train again.
told = train(read_recipe(recipe), folder / "told", mesh=make_mesh(model=2), report=stop_one)
(folder / f"{rank}.txt").write_text(
    f"{told.step} {told.finished} {result.step} {result.finished} {len(split) > 20} "
    f"{result.metrics['img2txt_recall@1']} {jax.device_count()}"
)
