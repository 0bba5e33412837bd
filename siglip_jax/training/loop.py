"""A run: steps, evaluation, checkpoints, and going on after an interruption.

A run lives in a folder:

    recipe.json        what it is a run of; the same folder takes no other
    metrics.jsonl      a line a step
    checkpoints/       orbax, the last few
    model/             the result, as `siglip_jax.load` and `siglip-jax convert` take it
    adapter/           with [lora], what was trained, as PEFT takes it

Starting the same recipe in the same folder goes on where the last checkpoint is, at the
very next example, and gives the same losses as a run that was never interrupted.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siglip_jax.data import Batches, Pairs, open_pairs
from siglip_jax.messages import reason
from siglip_jax.pretrained import save
from siglip_jax.programs.compile_times import compiling
from siglip_jax.programs.sharding import DATA, MODEL, make_mesh
from siglip_jax.stop import Stop
from siglip_jax.training import hosts
from siglip_jax.training.checkpoints import Checkpoints
from siglip_jax.training.claim import held_folder
from siglip_jax.training.embeddings import cached_image_embeddings
from siglip_jax.training.evaluator import inference_batch, make_evaluator, program
from siglip_jax.training.journal import Journal
from siglip_jax.training.lora import factor_names, merged, save_adapter, with_factors
from siglip_jax.training.optimizer import Schedule, make_optimizer, make_schedule, treatments
from siglip_jax.training.outcome import Diverged, TrainingProgress, TrainingResult
from siglip_jax.training.recipe import Recipe
from siglip_jax.training.recipe_tables import Optimizer
from siglip_jax.training.start import Start, first_weights, rules, start, warn_of_cut
from siglip_jax.training.step import TrainBatch, first_state, make_loss, make_step, split
from siglip_jax.weights.tree import flatten

_PROMISE = "the step in hand is finished and saved, and the same command goes on behind it"


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    mesh: Mesh | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> TrainingResult:
    """Runs a recipe to its end, or goes on with an interrupted run of it.

    Args:
      recipe: what to train on what.
      folder: of the run; made if need be.
      mesh: default: all devices.
      report: called after every step.

    Raises:
      ValueError: if the recipe does not fit its data, its weights or the devices, the folder
        holds another run or another process trains in it, or too many images cannot be read.
      Diverged: if the loss is no longer finite. The last checkpoint is from before.
      OSError: if the disk is full. The last whole checkpoint stays.

    See notebooks/train_emoji.ipynb for an example, interrupted and resumed.
    """
    folder = Path(folder).expanduser()
    mesh = make_mesh() if mesh is None else mesh
    if recipe.batch % (mesh.size * recipe.accumulate):
        least = mesh.size * recipe.accumulate
        raise ValueError(
            f"batch={recipe.batch} does not divide into accumulate={recipe.accumulate} parts over "
            f"{mesh.size} devices; the next that does is {math.ceil(recipe.batch / least) * least}"
        )
    begin = start(recipe)
    data = recipe.data
    pairs = open_pairs(
        data.train,
        image_column=data.image_column,
        text_column=data.text_column,
        separator=data.separator,
    )
    evaluate = make_evaluator(recipe, begin, mesh)
    with held_folder(folder, recipe) if hosts.first() else contextlib.nullcontext() as former:
        hosts.meet("claimed")
        warn_of_cut(begin, pairs)
        with _Run(recipe, folder, mesh, begin, pairs, report) as run:
            if former is not None:
                run.warn_of_length(former)
            return run.to_the_end(evaluate)


def _schedule(o: Optimizer, steps: int) -> Schedule:
    return make_schedule(
        o.schedule, steps, warmup=o.warmup, cooldown=o.cooldown, timescale=o.timescale
    )


class _Run:
    """The parts of a run that is under way."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        mesh: Mesh,
        begin: Start,
        pairs: Pairs,
        report: Callable[[TrainingProgress], None],
    ) -> None:
        self.recipe, self.folder, self.mesh, self.begin = recipe, folder, mesh, begin
        self.report, self.metrics = report, {}
        params = first_weights(recipe, begin.model, mesh)
        names = flatten(params)
        base = params
        if recipe.lora:
            params = with_factors(params, recipe.lora, recipe.seed, mesh, rules(recipe))
            names = factor_names(flatten(params))
        trained = treatments(names, recipe.parameters, recipe.optimizer)
        self.cache, unread = None, []
        if recipe.data.cache_images:
            moving = [name for name in trained if name.startswith("img/")]
            if moving:
                raise ValueError(
                    f"data.cache_images needs a frozen image tower, but {moving[0]} is trained; "
                    "add [[parameters]] with pattern = 'img/.*' and frozen = true"
                )
            self.cache, unread = cached_image_embeddings(
                folder,
                program(begin, mesh, recipe),
                base,
                pairs,
                begin.profile,
                batch=inference_batch(recipe, mesh),
                max_error_share=recipe.data.max_error_share,
                processes=recipe.data.workers,
                progress=lambda done, n: report(TrainingProgress("embedding images", done, n, {})),
            )
        o = recipe.optimizer
        schedule = _schedule(o, recipe.steps)
        # All at once: asked for step by step, it would have to wait its turn on the device.
        self.lr = o.lr * np.asarray(schedule(np.arange(recipe.steps)))
        tx = make_optimizer(o, trained, recipe.steps)
        lora = recipe.lora
        whole = (lambda params: merged(params, lora)) if lora else (lambda params: params)
        places = jax.tree.map(lambda leaf: leaf.sharding, base)
        self._whole = jax.jit(whole, out_shardings=places) if lora else whole
        del base  # donated to the state, as all weights are
        self.state = first_state(params, tx, trained, mesh, rules(recipe))
        self.step = jax.jit(
            make_step(
                begin.model,
                tx,
                trained,
                make_loss(recipe.loss, mesh),
                mesh,
                accumulate=recipe.accumulate,
                pixels=begin.profile.image.value_range,
                whole=whole,
            ),
            donate_argnums=0,
            # What comes out lies where it lay: else XLA chooses, and compiles a second time.
            out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, self.state), None),
        )
        self.batches = Batches(
            pairs,
            begin.tokenizer,
            begin.profile,
            batch=recipe.batch,
            seed=recipe.seed,
            augmentation=recipe.augmentation,
            images=self.cache is None,
            workers=recipe.data.workers,
            max_error_share=recipe.data.max_error_share,
            skip=unread,
            patch=begin.model.config.image_tower.patch if begin.model.config.naflex else None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.data = self.batches.state()
        self.checkpoints = Checkpoints(folder / "checkpoints", recipe.save.keep)
        if self.checkpoints.latest is not None:
            self.state, self.data = self.checkpoints.restore(self.state)
            self.batches.restore(self.data)
        self.done = int(self.state.step)
        self.journal = Journal(folder, self.done) if hosts.first() else None
        self._stop = Stop(_PROMISE)
        self._left = contextlib.ExitStack()

    def __enter__(self) -> "_Run":
        # In a job of several processes jax itself listens, and tells all of them.
        if jax.process_count() == 1:
            self._left.enter_context(self._stop)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._left:
            self.batches.close()
            if self.journal is not None:
                self.journal.close()
            self.checkpoints.close()

    def to_the_end(self, evaluate: Callable[[Any], dict[str, float]] | None) -> TrainingResult:
        recipe = self.recipe
        pending: tuple[int, Any] | None = None
        self._last, self._first = time.monotonic(), True
        for batch, data in self._fed():
            if self.done >= recipe.steps or self._told_to_stop():
                break
            with self._compiling() if self._first else contextlib.nullcontext():
                self.state, metrics = self.step(self.state, batch)
            self._first = False
            # Numbers of the step before are asked for while the device computes this one.
            self._tell(pending)
            self.done, self.data, pending = self.done + 1, data, (self.done + 1, metrics)
            if recipe.evaluate and evaluate and self.done % recipe.evaluate.every == 0:
                pending = self._tell(pending)
                self._evaluated(evaluate)
            if self.done % recipe.save.every == 0:
                pending = self._tell(pending)
                self.checkpoints.save(self.done, self.state, self.data)
        self._tell(pending)
        self.checkpoints.save(self.done, self.state, self.data)
        self.checkpoints.wait()
        self._warn_of_unreadable()
        params = self._whole(self.state.params)
        if self.done < recipe.steps:
            number = self._stop.signal
            return TrainingResult(self.done, False, params, None, self.metrics, number)
        if evaluate and not (
            recipe.evaluate and self.done % recipe.evaluate.every == 0 and self.metrics
        ):
            self._evaluated(evaluate)
        return TrainingResult(self.done, True, params, self._export(params), self.metrics)

    def _compiling(self) -> contextlib.AbstractContextManager[None]:
        mesh = self.mesh.devices
        step = f"the training step, batches of {self.recipe.batch:,}"
        return compiling(step, self.recipe.to_dict(), mesh.shape, mesh.flat[0].device_kind)

    def _fed(self) -> Iterator[tuple[TrainBatch, dict[str, Any]]]:
        """Batches on the devices, one ahead of the step, each with where the data is after it."""
        rows = NamedSharding(self.mesh, PartitionSpec((DATA, MODEL)))

        def put(x: Any) -> jax.Array:
            return jax.make_array_from_process_local_data(rows, np.asarray(x))

        ahead: tuple[TrainBatch, dict[str, Any]] | None = None
        for batch in self.batches:
            image = batch.image if self.cache is None else self.cache[np.asarray(batch.index)]
            ready = TrainBatch(jax.tree.map(put, image), put(batch.text))
            if ahead is not None:
                yield ahead
            ahead = ready, self.batches.state()

    def _told_to_stop(self) -> bool:
        if jax.process_count() > 1:
            return self.checkpoints.preempted(self.done)
        return self._stop()

    def _tell(self, pending: tuple[int, Any] | None) -> None:
        """Reports a step's numbers, once the device has them."""
        if pending is None:
            return
        step, metrics = pending
        values = {k: float(v) for k, v in jax.device_get(metrics)._asdict().items()}
        if not all(map(math.isfinite, values.values())):
            self.checkpoints.wait()
            last = self.checkpoints.latest
            kept = (
                f"the checkpoint of step {last} is from before"
                if last is not None
                else "there was no checkpoint yet"
            )
            raise Diverged(
                f"step {step}: the loss is {values['loss']:.4g}, its gradient's norm "
                f"{values['grad_norm']:.4g}, the temperature {values['temperature']:.4g}; {kept}; "
                "lower optimizer.lr or lengthen optimizer.warmup"
            )
        now = time.monotonic()
        seconds = now - self._last
        rate = self.recipe.batch / max(seconds, 1e-9)
        values["lr"] = float(self.lr[step - 1])
        if self.journal is not None:
            self.journal.write(step, values | {"seconds": seconds, "examples/s": rate})
        self._last = now
        values["examples/s"] = rate
        self.report(TrainingProgress("training", step, self.recipe.steps, values))

    def _evaluated(self, evaluate: Callable[[Any], dict[str, float]]) -> None:
        self.report(TrainingProgress("evaluating", self.done, self.recipe.steps, {}))
        self.metrics = evaluate(self._whole(self.state.params))
        values = {f"evaluate/{name}": value for name, value in self.metrics.items()}
        if self.journal is not None:
            self.journal.write(self.done, values)
        self.report(TrainingProgress("evaluated", self.done, self.recipe.steps, self.metrics))
        self._last = time.monotonic()

    def _export(self, params: Any) -> Path:
        target = self.folder / "model"
        params = hosts.gathered(params, self.mesh)
        lora, factors = self.recipe.lora, None
        if lora:
            names = factor_names(flatten(self.state.params))
            factors = hosts.gathered(split(self.state.params, dict.fromkeys(names))[0], self.mesh)
        if hosts.first() and not target.exists():
            try:
                if lora:
                    base = self.begin.repository
                    config = self.begin.model.config
                    save_adapter(self.folder / "adapter", factors, lora, config, base=base)
                save(
                    target,
                    self.begin.model,
                    params,
                    profile=self.begin.profile,
                    vocabulary=self.begin.vocabulary,
                    name=self.folder.name,
                )
            except OSError as error:
                raise OSError(
                    f"{target} could not be written: {reason(error)}; its weights are in "
                    f"the checkpoint of step {self.done}, and the same command tries again"
                ) from error
        hosts.meet("exported")
        return target

    def warn_of_length(self, former: int) -> None:
        """Says what becoming longer does to the learning rate, which goes by the whole run."""
        schedule = _schedule(self.recipe.optimizer, former)
        before, now = (
            float(self.recipe.optimizer.lr * schedule(self.done)),
            float(self.lr[min(self.done, self.recipe.steps - 1)]),
        )
        if not math.isclose(before, now, rel_tol=1e-6):
            warnings.warn(
                f"lengthened from {former} to {self.recipe.steps} steps: from step {self.done} on "
                f"the learning rate follows the longer schedule, {now:.3g} in place of "
                f"{before:.3g}; optimizer.schedule 'constant' or 'rsqrt' does not depend on steps",
                stacklevel=3,
            )

    def _warn_of_unreadable(self) -> None:
        if self.batches.bad:
            key, reason = next(iter(self.batches.bad.items()))
            warnings.warn(
                f"{self.data['unreadable']} times another image was taken for one that cannot be "
                f"read; of {len(self.batches.bad)} such images the first is {key}: {reason}",
                stacklevel=3,
            )
