"""Optimizers from optax, with big_vision's way of treating parameters by name.

Follows big_vision `optax.py` (`make`, `scale_by_adafactor`) and `utils.py`
(`create_learning_rate_schedule`) at 0127fb6: gradients are clipped by their global norm,
scaled by the optimizer, multiplied by the learning rate; weight decay is added to that,
*not* multiplied by the learning rate; both follow the schedule. So `weight_decay` here is
big_vision's `wd`, which the papers state: AdamW elsewhere calls this `weight_decay / lr`.

Frozen parameters are no part of any of it, not of the gradient's norm either.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from siglip_jax.messages import suggestions
from siglip_jax.training.recipe_tables import Optimizer, ParameterRule, ScheduleName

Schedule = Callable[[Any], jax.Array]


class Treatment(NamedTuple):
    """What happens to one parameter: multipliers, and a schedule from 0 to 1."""

    lr: float
    weight_decay: float
    schedule: tuple[ScheduleName, int, int, int]


def make_schedule(
    name: ScheduleName, steps: int, *, warmup: int = 0, cooldown: int = 0, timescale: int = 10_000
) -> Schedule:
    """A learning rate's multiplier, given the number of steps done.

    Args:
      name: "cosine" and "linear" reach 0 at `steps`; "rsqrt" falls with the square root of
        the steps since `warmup`, in units of `timescale`; "constant" stays 1.
      warmup, cooldown: steps of a linear rise from 0, and of a linear fall to 0 at the end.

    >>> schedule = make_schedule("cosine", 110, warmup=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def schedule(step: Any) -> jax.Array:
        done = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        if name == "cosine":
            value = 0.5 * (1 + jnp.cos(jnp.pi * done))
        elif name == "linear":
            value = 1 - done
        elif name == "rsqrt":
            value = jax.lax.rsqrt(1 + jnp.maximum(step - warmup, 0) / timescale)
        else:
            value = jnp.ones_like(done)
        if warmup:
            value = value * jnp.minimum(1.0, step / warmup)
        if cooldown:
            value = value * jnp.minimum(1.0, (steps - step) / cooldown)
        return jnp.asarray(value, jnp.float32)

    return schedule


def treatments(
    names: Iterable[str], rules: Iterable[ParameterRule], optimizer: Optimizer
) -> dict[str, Treatment]:
    """What happens to every parameter that is trained; frozen ones are not in it.

    Raises:
      ValueError: if a rule's pattern fits no parameter, or nothing is left to train.

    >>> frozen = ParameterRule(pattern="img/.*", frozen=True)
    >>> list(treatments(["img/kernel", "txt/kernel"], [frozen], Optimizer()))
    ['txt/kernel']
    """
    names, rules = list(names), list(rules)
    trained = {}
    for name in names:
        rule = next(
            (r for r in rules if re.fullmatch(r.pattern, name)), ParameterRule(pattern=".*")
        )
        if rule.frozen:
            continue
        # big_vision: `wd_mults` is [(".*/kernel$", 1.0)] unless said otherwise.
        decay = rule.weight_decay
        decay = float(name.endswith("/kernel")) if decay is None else decay
        trained[name] = Treatment(
            rule.lr,
            decay,
            (
                rule.schedule or optimizer.schedule,
                optimizer.warmup if rule.warmup is None else rule.warmup,
                optimizer.cooldown if rule.cooldown is None else rule.cooldown,
                optimizer.timescale,
            ),
        )
    for rule in rules:
        if not any(re.fullmatch(rule.pattern, name) for name in names):
            (example,) = suggestions(rule.pattern, names) or ["img/embedding/kernel"]
            raise ValueError(
                f"parameters: the pattern {rule.pattern!r} fits no parameter; "
                f"it must fit a whole name, such as {example}"
            )
    if not trained:
        raise ValueError("parameters: everything is frozen, so that there is nothing to train")
    return trained


def make_optimizer(
    optimizer: Optimizer, trained: Mapping[str, Treatment], steps: int
) -> optax.GradientTransformation:
    """The whole chain, from gradients to updates, for `trained` parameters by name.

    >>> import jax.numpy as jnp
    >>> adam = Optimizer(lr=0.5, weight_decay=0.0, schedule="constant")
    >>> names = treatments(["kernel"], [], adam)
    >>> tx = make_optimizer(adam, names, steps=10)
    >>> params = {"kernel": jnp.ones(2)}
    >>> updates, _ = tx.update({"kernel": jnp.array([3.0, -4.0])}, tx.init(params), params)
    >>> [round(float(update), 6) for update in updates["kernel"]]
    [-0.5, 0.5]
    """
    clip = optax.clip_by_global_norm(optimizer.clip) if optimizer.clip else optax.identity()
    return optax.chain(clip, _scale(optimizer), _apply(optimizer, trained, steps))


def _scale(o: Optimizer) -> optax.GradientTransformation:
    if o.name == "adamw":
        return optax.scale_by_adam(b1=o.b1, b2=o.b2)
    if o.name == "lion":
        return optax.scale_by_lion(b1=o.b1, b2=o.b2)

    # Adafactor as in "Scaling Vision Transformers" (arXiv 2106.04560, section 3.4): no
    # relative step size, no clipping of updates, momentum in half precision, b2 bounded.
    def second_moment_decay(step: Any, exponent: Any) -> jax.Array:
        return jnp.minimum(o.b2, 1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -exponent)

    return optax.chain(
        optax.scale_by_factored_rms(
            min_dim_size_to_factor=32, decay_rate_fn=second_moment_decay, epsilon=1e-30
        ),
        optax.ema(o.b1, debias=False, accumulator_dtype=jnp.bfloat16),
    )


def _apply(
    optimizer: Optimizer, trained: Mapping[str, Treatment], steps: int
) -> optax.GradientTransformation:
    """-(lr · update + weight_decay · parameter) · schedule, with each parameter's multipliers."""
    schedules = {
        key: make_schedule(key[0], steps, warmup=key[1], cooldown=key[2], timescale=key[3])
        for key in {treatment.schedule for treatment in trained.values()}
    }

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        now = {key: schedule(state.count) for key, schedule in schedules.items()}

        def leaf(path: Any, u: jax.Array, p: jax.Array) -> jax.Array:
            how = trained[_name(path)]
            step = optimizer.lr * how.lr * u
            if optimizer.weight_decay * how.weight_decay:
                step = step + optimizer.weight_decay * how.weight_decay * p
            return -step * now[how.schedule]

        updates = jax.tree_util.tree_map_with_path(leaf, updates, params)
        return updates, optax.ScaleByScheduleState(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def _name(path: Any) -> str:
    return "/".join(str(key.key) for key in path)
