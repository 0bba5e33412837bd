"""One step of training, as a pure function of a state and a batch.

    step(state, batch) -> (state, metrics)

The loss sees the whole global batch however it is split: over devices by the ring of
`training.ring`, over time by accumulation. Accumulating gradients of the loss of each part
would be another loss, one whose negatives are only those of its own part; here the
embeddings of all parts come first, then the loss and its gradient with respect to them,
and last each part again to carry that gradient to the weights (the idea of GradCache,
arXiv 2101.06983).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from siglip_jax.models import SiglipModel, value_range
from siglip_jax.models.activations import batches_split_by
from siglip_jax.preprocessing.profiles import PixelRange
from siglip_jax.programs.sharding import DATA, MODEL, Rules, sharding_of
from siglip_jax.training.loss import softmax_loss
from siglip_jax.training.recipe_tables import Loss
from siglip_jax.training.ring import chunked_sigmoid_loss
from siglip_jax.weights.tree import flatten, nested

LossFunction = Callable[..., Float[Array, ""]]


class TrainState(NamedTuple):
    """What a step changes. `params` is the whole tree, `opt_state` of the trained part only."""

    step: Int[Array, ""]
    params: Any
    opt_state: Any


class TrainBatch(NamedTuple):
    """`image`: uint8 (b, res, res, 3), `Patches`, or embeddings (b, d); `text`: ids (b, n)."""

    image: Any
    text: Any


class Metrics(NamedTuple):
    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    temperature: Float[Array, ""]
    bias: Float[Array, ""]


def make_loss(loss: Loss, mesh: Mesh) -> LossFunction:
    """`(zimg, ztxt, t, b) -> scalar` of the global batch on `mesh`."""
    if loss.name == "softmax":
        return softmax_loss

    def sigmoid(zimg: Any, ztxt: Any, t: Any, b: Any) -> jax.Array:
        return chunked_sigmoid_loss(
            zimg, ztxt, t, b, mesh=mesh, axes=(DATA, MODEL), chunk=loss.chunk
        )

    return sigmoid


def split(params: Any, trained: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters by name: those to train and the others.

    >>> split({"img": {"kernel": 1}, "t": 2}, {"t": None})
    ({'t': 2}, {'img/kernel': 1})
    """
    flat = flatten(params)
    return (
        {name: leaf for name, leaf in flat.items() if name in trained},
        {name: leaf for name, leaf in flat.items() if name not in trained},
    )


def first_state(
    params: Any,
    tx: optax.GradientTransformation,
    trained: Mapping[str, Any],
    mesh: Mesh,
    rules: Rules,
) -> TrainState:
    """The state before the first step; what the optimizer keeps lies where the weights do."""
    place = sharding_of(mesh, rules)

    def init(params: Any) -> TrainState:
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=tx.init(nested(split(params, trained)[0])),
        )

    def where(path: Any, leaf: Any) -> NamedSharding:
        keys = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        # What an optimizer keeps of a parameter ends in the parameter's own name.
        start = next((i for i, key in enumerate(keys) if key in ("img", "txt", "t", "b")), None)
        if start is None:
            return NamedSharding(mesh, PartitionSpec())
        return place("/".join(keys[start:]), leaf.shape)

    shardings = jax.tree_util.tree_map_with_path(where, jax.eval_shape(init, params))
    # Donated: there is one copy of the weights, ever.
    return jax.jit(init, out_shardings=shardings, donate_argnums=0)(params)


def make_step(
    model: SiglipModel,
    tx: optax.GradientTransformation,
    trained: Mapping[str, Any],
    loss: LossFunction,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    pixels: PixelRange = (-1.0, 1.0),
    whole: Callable[[Any], Any] = lambda params: params,
) -> Callable[[TrainState, TrainBatch], tuple[TrainState, Metrics]]:
    """The step, to be jitted with its state donated.

    Args:
      model: what is trained.
      tx: an optimizer of the trained parameters, nested as they are.
      trained: names of parameters; the others keep every bit.
      loss: of the embeddings of the global batch; see `make_loss`.
      mesh: where the batch is split over all devices.
      accumulate: parts to embed one after the other; it must divide each device's share.
      pixels: what grey levels 0 and 255 become.
      whole: from the parameters of a state to those that the model takes.
    """
    rows = NamedSharding(mesh, PartitionSpec((DATA, MODEL)))

    # Precision is fixed when a function is traced, whatever is set at its call.
    @contextlib.contextmanager
    def tracing() -> Iterator[None]:
        precision = jax.default_matmul_precision(model.execution.precision)
        with precision, batches_split_by(rows):
            yield

    def embed(params: Any, batch: TrainBatch) -> tuple[jax.Array, jax.Array]:
        image, apply = batch.image, cast(Callable[..., Any], model.apply)
        params = whole(params)
        if isinstance(image, jax.Array) and image.ndim == 2:  # embedded once and cached
            return image, apply({"params": params}, None, batch.text)[1]
        if isinstance(image, jax.Array) and image.dtype == jnp.uint8:
            image = value_range(image, *pixels)
        zimg, ztxt, _ = apply({"params": params}, image, batch.text)
        return zimg, ztxt

    def gradients(train: Any, frozen: dict[str, Any], batch: TrainBatch) -> tuple[jax.Array, Any]:
        def every(train: Any) -> Any:
            return nested(flatten(train) | frozen)

        def direct(train: Any) -> jax.Array:
            params = every(train)
            return loss(*embed(params, batch), params["t"], params["b"])

        if accumulate == 1:
            return jax.value_and_grad(direct)(train)

        parts = jax.tree.map(lambda x: _parts(x, accumulate), batch)
        params = every(train)
        z = jax.lax.map(lambda part: embed(params, part), parts)
        zimg, ztxt = (_joined(each, rows) for each in z)

        def of_embeddings(train: Any, zimg: jax.Array, ztxt: jax.Array) -> jax.Array:
            params = every(train)
            return loss(zimg, ztxt, params["t"], params["b"])

        value, (grads, *dz) = jax.value_and_grad(of_embeddings, (0, 1, 2))(train, zimg, ztxt)

        def back(grads: Any, part: Any) -> tuple[Any, None]:
            inputs, cotangents = part
            _, vjp = jax.vjp(lambda train: embed(every(train), inputs), train)
            return jax.tree.map(jnp.add, grads, vjp(cotangents)[0]), None

        dparts = tuple(_parts(each, accumulate) for each in dz)
        return value, jax.lax.scan(back, grads, (parts, dparts))[0]

    def step(state: TrainState, batch: TrainBatch) -> tuple[TrainState, Metrics]:
        flat, frozen = split(state.params, trained)
        train = nested(flat)
        with tracing():
            value, grads = gradients(train, frozen, batch)
        updates, opt_state = tx.update(grads, state.opt_state, train)
        train = optax.apply_updates(train, updates)
        params = nested(flatten(cast(dict[str, Any], train)) | frozen)
        metrics = Metrics(
            loss=value,
            grad_norm=_norm(grads),
            temperature=jnp.exp(params["t"][0]),
            bias=params["b"][0],
        )
        return TrainState(state.step + 1, params, opt_state), metrics

    return step


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _parts(x: jax.Array, n: int) -> jax.Array:
    """(b, ...) to (n, b/n, ...); every part has rows of every device."""
    return jnp.swapaxes(x.reshape(x.shape[0] // n, n, *x.shape[1:]), 0, 1)


def _joined(x: jax.Array, rows: NamedSharding) -> jax.Array:
    x = jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
    return jax.lax.with_sharding_constraint(x, rows)
