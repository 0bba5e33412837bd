"""siglip_jax as a contestant: one tower, or a training step, with the weights of `weights`."""

import time
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from sizes import Case, config_for
from weights import inputs, tensor

from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel, vision
from siglip_jax.preprocessing import Patches
from siglip_jax.programs import REPLICATED, Program, make_mesh
from siglip_jax.programs.sharding import put


class Ours:
    """A tower as `Scorer` runs it, its inputs on the device: uint8 pixels, patches or ids."""

    def __init__(self, case: Case, options: dict[str, Any]) -> None:
        self.case, self.config = case, config_for(case)
        if options.pop("convolved", False):
            vision.platform = lambda: None
        self.program = Program(
            SiglipModel(self.config, Execution(**options)), make_mesh(jax.devices()[:1])
        )
        leaves = flatten_dict(self.program.abstract_params(), sep="/")
        placed = {
            name: jax.device_put(tensor(name, leaf.shape).astype(leaf.dtype), leaf.sharding)
            for name, leaf in leaves.items()
        }
        self.params = unflatten_dict(placed, sep="/")
        self.ready: dict[int, tuple[Any, Any]] = {}

    def prepare(self, batch: int) -> dict[str, Any]:
        """Compiles, without running: nothing on the device is kept from others."""
        given = inputs(self.config, self.case.tower, batch)
        given = Patches(**given) if isinstance(given, dict) else given
        given = jax.tree.map(lambda leaf: put(leaf, self.program.batch_sharding), given)
        function = self.program.images if self.case.tower == "images" else self.program.texts
        start = time.perf_counter()
        compiled = function.lower(self.params, given).compile()
        seconds = time.perf_counter() - start
        self.ready[batch] = compiled, given
        memory = compiled.memory_analysis()
        return {
            "compile_seconds": seconds,
            "temporary": None if memory is None else int(memory.temp_size_in_bytes),
        }

    def run(self, batch: int, count: int) -> None:
        """`count` batches one after the other, two in flight, as a scorer has them."""
        compiled, given = self.ready[batch]
        waiting = [compiled(self.params, given)]
        for _ in range(count - 1):
            waiting.append(compiled(self.params, given))
            jax.block_until_ready(waiting.pop(0))
        jax.block_until_ready(waiting)

    def embed(self, batch: int) -> np.ndarray:
        compiled, given = self.ready[batch]
        return np.asarray(compiled(self.params, given))

    def release(self) -> None:
        """XLA keeps what it has; this process ends when its case does."""

    def memory(self) -> int | None:
        stats = jax.devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")


class OurTraining:
    """One step of `siglip_jax.training` with AdamW, over and over on the same batch."""

    def __init__(self, case: Case, options: dict[str, Any]) -> None:
        from siglip_jax.training.optimizer import make_optimizer, treatments
        from siglip_jax.training.recipe_tables import Loss, Optimizer
        from siglip_jax.training.step import first_state, make_loss, make_step

        self.config, self.mesh = config_for(case), make_mesh(jax.devices()[:1])
        model = SiglipModel(self.config, Execution(**options))
        optimizer = Optimizer(lr=1e-5, schedule="constant")
        names = flatten_dict(Program(model, self.mesh).abstract_params(), sep="/")
        params = {name: jax.device_put(tensor(name, leaf.shape)) for name, leaf in names.items()}
        trained = treatments(names, (), optimizer)
        tx = make_optimizer(optimizer, trained, 1000)
        params = unflatten_dict(params, sep="/")
        self.state = first_state(params, tx, trained, self.mesh, REPLICATED)
        step = make_step(model, tx, trained, make_loss(Loss(), self.mesh), self.mesh)
        placed = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        self.step = jax.jit(step, donate_argnums=0, out_shardings=(placed, None))
        self.ready: dict[int, tuple[Any, Any]] = {}

    def prepare(self, batch: int) -> dict[str, Any]:
        from jax.sharding import NamedSharding, PartitionSpec

        from siglip_jax.programs.sharding import DATA, MODEL
        from siglip_jax.training.step import TrainBatch

        rows = NamedSharding(self.mesh, PartitionSpec((DATA, MODEL)))
        given = TrainBatch(*(inputs(self.config, tower, batch) for tower in ("images", "texts")))
        given = jax.tree.map(lambda leaf: put(leaf, rows), given)
        start = time.perf_counter()
        compiled = self.step.lower(self.state, given).compile()
        seconds = time.perf_counter() - start
        self.ready[batch] = compiled, given
        memory = compiled.memory_analysis()
        return {
            "compile_seconds": seconds,
            "temporary": None if memory is None else int(memory.temp_size_in_bytes),
        }

    def run(self, batch: int, count: int) -> None:
        compiled, given = self.ready[batch]
        for _ in range(count):
            self.state, metrics = compiled(self.state, given)
        jax.block_until_ready((self.state, metrics))

    def embed(self, batch: int) -> np.ndarray:
        """The loss of one step: what two trainers of the same weights agree on."""
        compiled, given = self.ready[batch]
        self.state, metrics = compiled(self.state, given)
        return np.asarray(metrics.loss)[None]

    release = Ours.release
    memory = Ours.memory
