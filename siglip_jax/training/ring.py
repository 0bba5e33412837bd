"""The sigmoid loss of a batch that no device holds: texts travel round a ring.

Section 3.3 of arXiv 2303.15343. Each of D devices keeps its n = batch / D images and
scores the texts of one device at a time, n x n logits, so that memory grows with
(batch / D)^2 where the dense loss takes batch^2 / D. Two things differ from the paper:

- Loss and gradients are computed in the same pass. Left to autodiff, the ring keeps the
  logits of every hop for the way back and saves nothing; see `benchmarks/loss_memory.py`.
- Half of a device's texts travel up the ring and half down, so that both directions of
  every link are used and a hop takes half the time.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, ArrayLike, Float

from siglip_jax.models import logits


def chunked_sigmoid_loss(
    zimg: Float[ArrayLike, "b d"],
    ztxt: Float[ArrayLike, "b d"],
    t: Float[ArrayLike, "1"],
    b: Float[ArrayLike, "1"],
    *,
    mesh: Mesh,
    axes: Sequence[str] = ("data",),
    chunk: int | None = None,
) -> Float[Array, ""]:
    """`sigmoid_loss` of the whole batch, with n x chunk logits on a device at a time.

    Meant for use under `jax.jit`. Differentiable once, in reverse: gradients come with the
    value, in one pass, and only where they are asked for.

    Args:
      zimg: images, unit-norm rows; all of the batch, split over `axes`.
      ztxt: their texts.
      t: the parameter whose exponential is the temperature.
      b: the bias.
      mesh: the devices.
      axes: names of the mesh axes that the batch is split over, outermost first. Over other
        axes it is repeated.
      chunk: how many texts a device scores at a time, at most; default: the n / 2 that
        travel together, where n = batch / devices.

    Raises:
      ValueError: if images and texts are not equally many and wide, the mesh lacks an axis,
        or the devices do not divide the batch, or `chunk` what a device holds of it.

    >>> mesh = Mesh(np.array(jax.devices()[:1]), "data")
    >>> z, t, b = jnp.eye(4), jnp.log(jnp.array([10.0])), jnp.array([-10.0])
    >>> loss = functools.partial(chunked_sigmoid_loss, mesh=mesh, chunk=2)
    >>> round(float(jax.jit(loss)(z, z, t, b)), 5)
    0.69328
    """
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    devices, chunk = _sizes(jnp.shape(zimg), jnp.shape(ztxt), mesh, axes, chunk)
    dtype = jnp.result_type(zimg, ztxt, t, b)

    def on_mesh(gradients: bool) -> Any:
        split, whole = PartitionSpec(axes), PartitionSpec()
        # jax numbers the devices of a `ppermute` in the mesh's order of axes, and refuses another
        # since 0.11. Any order will do: every text meets every device, and its own images first.
        ring = tuple(axis for axis in mesh.axis_names if axis in axes)
        return jax.shard_map(
            functools.partial(_ring, axes=ring, devices=devices, chunk=chunk, gradients=gradients),
            mesh=mesh,
            in_specs=(split, split, whole, whole),
            out_specs=(whole, (split, split, whole, whole)) if gradients else whole,
        )

    loss = jax.custom_vjp(on_mesh(gradients=False))
    loss.defvjp(on_mesh(gradients=True), lambda gradients, ct: _scaled(gradients, ct))
    return loss(*(jnp.asarray(x, dtype) for x in (zimg, ztxt, t, b)))


def _scaled(gradients: Any, by: Any) -> Any:
    return jax.tree.map(lambda gradient: gradient * by, gradients)


def _sizes(
    images: tuple[int, ...],
    texts: tuple[int, ...],
    mesh: Mesh,
    axes: tuple[str, ...],
    chunk: int | None,
) -> tuple[int, int]:
    """How many devices share the batch, and how many texts one scores at a time."""
    if len(images) != 2 or images != texts:
        raise ValueError(f"expected as many texts as images, equally wide, got {images}, {texts}")
    for axis in axes:
        if axis not in mesh.shape:
            raise ValueError(f"the mesh has no axis {axis!r}, only {', '.join(mesh.shape)}")
    devices = int(np.prod([mesh.shape[axis] for axis in axes], dtype=int))
    block, rest = divmod(images[0], devices)
    if rest or not block:
        raise ValueError(
            f"a batch of {images[0]} does not divide by the {devices} devices of {axes}: "
            f"use a multiple, such as {(block + 1) * devices}"
        )
    chunk = block if chunk is None else chunk
    if chunk < 1 or block % chunk:
        raise ValueError(f"chunk={chunk} does not divide the {block} texts of a device")
    return devices, chunk


def _ring(
    zimg: Any,
    ztxt: Any,
    t: Any,
    b: Any,
    *,
    axes: tuple[str, ...],
    devices: int,
    chunk: int,
    gradients: bool,
) -> Any:
    """What one device does; returns the loss, or (loss, gradients).

    `seen` sums over the texts that this device's images have met. `texts` are on their way
    round the ring, first its own; `sums` are what their gradients have gathered.
    """
    ways = (1, -1) if len(zimg) % 2 == 0 else (1,)  # an odd number has no halves

    def pass_on(halves: Sequence[Any]) -> Any:
        routes = [[(i, (i + by) % devices) for i in range(devices)] for by in ways]
        return [lax.ppermute(x, axes, r) for x, r in zip(halves, routes, strict=True)]

    def hop(count: Any, carry: Any) -> Any:
        # Nothing that is sent waits for what is computed, so that both can happen at once:
        # texts are a hop ahead of their sums. The price is that at last they come home, unread.
        seen, texts, sums = carry
        seen, parts = _meet(
            seen, zimg, texts, t, b, own=count == 0, chunk=chunk, gradients=gradients
        )
        if gradients:
            sums = _add(pass_on(sums), parts)
        return seen, pass_on(texts), sums

    per_image, texts = jnp.zeros_like(zimg[:, 0]), jnp.split(ztxt, len(ways))
    seen = (per_image, per_image, jnp.zeros_like(zimg)) if gradients else (per_image,)
    sums = [jnp.zeros_like(x) for x in texts] if gradients else None
    seen, _, sums = lax.fori_loop(0, devices, hop, (seen, texts, sums))

    batch = devices * len(zimg)
    loss = lax.psum(jnp.sum(seen[0]), axes) / batch
    if not gradients:
        return loss
    home = jnp.concatenate(pass_on(sums))
    scale = jnp.exp(t)[None] / batch
    dzimg, dztxt = seen[2] * scale, home * scale
    # t only scales zimg, so how the loss follows one tells how it follows the other.
    dt = lax.psum(jnp.sum(zimg * dzimg, keepdims=True)[0], axes)
    db = lax.psum(jnp.sum(seen[1], keepdims=True), axes) / batch
    return loss, (dzimg, dztxt, dt, db)


def _meet(
    seen: Any,
    zimg: Any,
    halves: Sequence[Any],
    t: Any,
    b: Any,
    *,
    own: Any,
    chunk: int,
    gradients: bool,
) -> Any:
    """Adds what images have to do with the texts of a device, one chunk at a time.

    Returns `seen` = (loss per image, gradient of its bias, gradient of the image) and the
    gradients of the texts, a list like `halves`; those of embeddings still without the
    temperature. Where `own`, the texts belong to the images.
    """
    n, half = len(zimg), len(halves[0])
    chunk = math.gcd(chunk, half)

    # One loop over both halves, so that no compiler holds the logits of both.
    def step(seen: Any, start: Any) -> Any:
        chunks = [lax.dynamic_slice_in_dim(x, start % half, chunk) for x in halves]
        texts = chunks[0] if len(chunks) == 1 else jnp.where(start < half, *chunks)
        rows, columns = (lax.broadcasted_iota(start.dtype, (n, chunk), axis) for axis in (0, 1))
        labels = jnp.where(own & (rows == start + columns), 1, -1).astype(zimg.dtype)
        scores = labels * logits(zimg, texts, t, b)
        parts = (-jnp.sum(jax.nn.log_sigmoid(scores), axis=1),)
        if not gradients:
            return _add(seen, parts), None
        slope = -labels * jax.nn.sigmoid(-scores)
        parts += jnp.sum(slope, axis=1), slope @ texts
        return _add(seen, parts), slope.T @ zimg

    seen, dtexts = lax.scan(step, seen, jnp.arange(0, n, chunk))
    return seen, list(dtexts.reshape(len(halves), half, -1)) if gradients else None


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
