"""Models on this device against the CPU and big_vision's own numbers.

float32 at the highest matmul precision must agree within `tests/support/tolerances.py`'s EMBEDDING,
bfloat16 within BFLOAT16_EMBEDDING, whichever way the model is executed.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from parts import tests_folder
from parts.at_once import attempted
from parts.device import describe
from results import Results
from sizes import config_of, two_layers
from weights import inputs, tensor, tree

from siglip_jax.config import ATTENTIONS, Execution
from siglip_jax.models import SiglipModel, value_range
from siglip_jax.models.attention import attention
from siglip_jax.preprocessing import Patches
from siglip_jax.weights.layout import parameter_shapes

tests_folder.importable()
from tolerances import ACTIVATION_RELATIVE, BFLOAT16_EMBEDDING, EMBEDDING  # noqa: E402
from towers import NAMES, case  # noqa: E402

# bfloat16 rounds a score of 4 by up to 2^-7, and with it each weight by a hundredth; the outputs
# are means under these weights. tests/models/test_conformance.py holds cuDNN to the same.
ATTENTION_BFLOAT16 = 2e-2
BFLOAT16 = {"dtype": "bfloat16", "text_dtype": "bfloat16"}


def run(results: Results) -> None:
    describe(results)
    gpu = results.platform == "gpu"
    each = functools.partial
    tasks = [
        (f"head_dim {head_dim}", each(attentions, results, head_dim, gpu))
        for head_dim in ((72,) if results.scale.rehearsal else (64, 72))
        if results.scale.goldens != 0
    ]
    tasks += [
        (f"golden {name}", each(golden, results, name)) for name in NAMES[: results.scale.goldens]
    ]
    tasks += [(name, each(model, results, name, gpu)) for name in results.scale.conformance]
    attempted(results, tasks)


def golden(results: Results, name: str) -> None:
    """A committed tiny model against what big_vision computed."""
    tiny = case(name)
    z = embed(tiny.config, tiny.execution, tiny.params, tiny.images, tiny.texts)
    limit = EMBEDDING if tiny.execution.dtype == "float32" else BFLOAT16_EMBEDDING
    for tower, ours in zip(("zimg", "ztxt"), z, strict=True):
        results.check(f"golden {name}, {tower}", apart(ours, tiny.golden[tower]), limit)


def attentions(results: Results, head_dim: int, gpu: bool) -> None:
    """Every implementation against float64, with and without a mask."""
    rng = np.random.default_rng(head_dim)
    b, n, heads = (2, 12, 3) if results.scale.rehearsal else (4, 256, 12)
    query, key, value = rng.normal(size=(3, b, n, heads, head_dim))
    mask = rng.random((b, n, n)) < 0.7
    mask[:, :, 0] = True
    for masked in (None, mask):
        for dtype, implementation in ways(gpu):
            what = f"attention {implementation}, {dtype}, head_dim {head_dim}"
            what += ", masked" if masked is not None else ""
            with results.attempt(what), jax.default_matmul_precision("highest"):
                given = [jnp.asarray(x, dtype) for x in (query, key, value)]
                got = jax.jit(attention, static_argnames="implementation")(
                    *given,
                    None if masked is None else jnp.asarray(masked),
                    implementation=implementation,
                )
                want = exact([np.asarray(x, np.float64) for x in given], masked)
                limit = ACTIVATION_RELATIVE if dtype == "float32" else ATTENTION_BFLOAT16
                # Relative to the largest: these are no unit vectors.
                results.check(what, apart(got, want) / np.abs(want).max(), limit)
                if implementation == "auto" and dtype == "bfloat16":
                    gradients(results, what, given, masked)


def gradients(results: Results, what: str, given: Any, masked: np.ndarray | None) -> None:
    """Of `auto` in bfloat16, against those of the readable implementation in float32."""

    def loss(arrays: Any, how: str) -> Any:
        mask = None if masked is None else jnp.asarray(masked)
        return jnp.square(attention(*arrays, mask, implementation=how).astype("float32")).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    got = gradient(given, "auto")
    want = gradient([x.astype("float32") for x in given], "einsum")
    for name, ours, theirs in zip(("query", "key", "value"), got, want, strict=True):
        off = apart(ours, theirs) / np.abs(np.asarray(theirs)).max()
        results.check(f"{what}, gradient of the {name}", off, ATTENTION_BFLOAT16)


def ways(gpu: bool) -> Iterator[tuple[str, str]]:
    for implementation in ATTENTIONS:
        if implementation != "cudnn":
            yield "float32", implementation
        if implementation != "cudnn" or gpu:
            yield "bfloat16", implementation


def exact(given: list[np.ndarray], mask: np.ndarray | None) -> np.ndarray:
    query, key, value = given
    scores = np.einsum("bqkd,bvkd->bkqv", query, key) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = np.where(mask[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bkqv,bvkd->bqkd", weights, value)


def model(results: Results, name: str, gpu: bool) -> None:
    """Two layers at full width: every execution here against the CPU in the same precision."""
    config = two_layers(config_of(name))
    params = tree(config)
    images, texts = host_inputs(config)
    cpu: dict[str, Any] = {}
    with jax.default_device(jax.devices("cpu")[0]):
        for dtype in ("float32", "bfloat16"):
            reference = Execution(dtype=dtype, text_dtype=dtype, attention="einsum")
            cpu[dtype] = embed(config, reference, params, images, texts)
    for what, execution, limit in executions(gpu):
        given = in_layout(config, execution, params)
        with results.attempt(f"{name}, {what}"):
            z = embed(config, execution, given, images, texts)
            for tower, ours, theirs in zip(
                ("images", "texts"), z, cpu[execution.dtype], strict=True
            ):
                results.check(f"{name}, {what}, {tower}", apart(ours, theirs), limit)


def executions(gpu: bool) -> Iterator[tuple[str, Execution, float]]:
    # Every implementation by itself is in `attentions`, and in the part `suite`.
    for implementation in ("auto", "xla"):
        yield implementation, Execution(attention=implementation), EMBEDDING
    for implementation in ("auto", "cudnn") if gpu else ("auto",):
        lower = Execution(attention=implementation, **BFLOAT16)
        yield f"{implementation}, bfloat16", lower, BFLOAT16_EMBEDDING
    yield "scan", Execution(scan_image=True, scan_text=True), EMBEDDING


def in_layout(config: Any, execution: Execution, params: Any) -> Any:
    if not execution.scan_image:
        return params
    from flax.traverse_util import unflatten_dict

    shapes = parameter_shapes(config, scan_image=True, scan_text=True)
    flat = {key: tensor(key, shape) for key, shape in shapes.items()}
    return unflatten_dict(flat, sep="/")


def host_inputs(config: Any) -> tuple[Any, Any]:
    images = inputs(config, "images", 4)
    images = Patches(**images) if isinstance(images, dict) else np.asarray(value_range(images))
    return images, inputs(config, "texts", 4)


def embed(config: Any, execution: Execution, params: Any, images: Any, texts: Any) -> Any:
    """(zimg, ztxt) as a scorer computes them."""
    run = jax.jit(SiglipModel(config, dataclasses.replace(execution)).apply)
    with jax.default_matmul_precision(execution.precision):
        return [np.asarray(z) for z in run({"params": params}, images, texts)[:2]]


def apart(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)).max())
