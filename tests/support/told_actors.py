"""Sources and models for actors: what a test wants of an actor, it tells by the source."""

import os
import signal
import time
from pathlib import Path

import jax
import threads_as_ray
from job_inputs import Told

import siglip_jax
from siglip_jax.programs import make_mesh


class OneDevice:
    """Loads a model on one device, as the process of an actor has one."""

    def __init__(self, model):
        self.model = model

    def __call__(self):
        return siglip_jax.load(self.model, mesh=make_mesh(jax.local_devices()[:1]))


class Deadly(Told):
    """Ends the process that reads a shard, or the thread that plays one, so many times.

    Args:
      folder: where it is noted, in a file for each time.
      deaths: how often, by shard.
      slow: seconds that a shard takes.
    """

    def __init__(self, items, size, folder, deaths, *, slow=0.0):
        super().__init__(items, size)
        self.folder, self.deaths, self.slow, self.actor = str(folder), deaths, slow, None

    def __getstate__(self):
        return {**self.__dict__, "actor": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.actor = threads_as_ray.here()

    def read(self, shard):
        time.sleep(self.slow)
        if self._first(shard):
            if self.actor is None:
                os.kill(os.getpid(), signal.SIGKILL)
            self.actor.die("Its process was killed. There are some potential root causes ...")
        yield from super().read(shard)

    def _first(self, shard):
        """Whether one is to die of it, which is then noted."""
        for time_ in range(self.deaths.get(shard, 0)):
            try:
                (Path(self.folder) / f"{shard}-{time_}").touch(exist_ok=False)
                return True
            except FileExistsError:
                continue
        return False


class Doomed(Deadly):
    """Says on which node of Ray a shard is read for the first time, and waits for its end."""

    def read(self, shard):
        if self._first(shard):
            import ray

            node = ray.get_runtime_context().get_node_id()
            (Path(self.folder) / "doomed.tmp").write_text(node)
            (Path(self.folder) / "doomed.tmp").rename(Path(self.folder) / "doomed")
            time.sleep(600)
        yield from Told.read(self, shard)
