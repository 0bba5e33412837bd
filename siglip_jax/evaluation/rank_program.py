"""The compiled function behind `ranks`: blocks of similarities, counted and forgotten.

It holds no embeddings and touches no device until called, so that it can be lowered and
compiled ahead of time for sizes and meshes that are not present. Compiled for 100,000 x
100,000 in 768 dimensions on 8 devices, a device needs 80 MB for its rows of both and 16 MB
of temporary memory (8 CPU devices; 4 MB for v5e chips); on one device, 617 and 18 MB.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Rows are padded to multiples of this: nearby sizes share one compiled program, and no product
# has a ragged edge, where other code might round equal rows differently.
_TILE = 128
CHUNK = 1024
# Behind every candidate: the rank of an image that has no text.
NEVER = np.iinfo(np.int32).max


def padded_shapes(
    images: int, texts: int, d: int, mesh: Mesh, chunk: int = CHUNK
) -> tuple[tuple[int, ...], ...]:
    """Shapes of what `compiled` takes: blocks of images, chunks of texts, their images."""
    devices = mesh.size
    block = min(_round_up(chunk, _TILE), _round_up(-(-images // devices), _TILE))
    # Every device holds a part of every chunk.
    tile = math.lcm(_TILE, devices)
    width = min(_round_up(chunk, tile), _round_up(texts, tile))
    chunks = -(-texts // width)
    return (
        (_round_up(-(-images // block), devices), block, d),
        (chunks, width, d),
        (chunks, width),
    )


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding, NamedSharding]:
    """Where the three lie: rows over all devices, owners everywhere."""
    axes = tuple(mesh.axis_names)
    specs = PartitionSpec(axes), PartitionSpec(None, axes), PartitionSpec()
    return tuple(NamedSharding(mesh, spec) for spec in specs)  # type: ignore[return-value]


@functools.lru_cache(maxsize=8)
def compiled(mesh: Mesh) -> Callable[..., Any]:
    """The jitted function of padded arrays and the number of images; ranks with the padding."""
    where, everywhere = shardings(mesh), NamedSharding(mesh, PartitionSpec())
    axes = tuple(mesh.axis_names)
    program = jax.shard_map(
        functools.partial(_ranks_of_a_device, axes),
        mesh=mesh,
        in_specs=(*(sharding.spec for sharding in where), PartitionSpec()),
        out_specs=(PartitionSpec(axes), PartitionSpec()),
        # The loops start from constants, which jax would have marked as differing by device,
        # under a name that changed between its versions.
        check_vma=False,
    )
    return jax.jit(program, in_shardings=(*where, everywhere), out_shardings=everywhere)


class _Block(NamedTuple):
    """Similarities (block, width) of some images and texts, and which they are."""

    similarity: jax.Array
    own: jax.Array
    image: jax.Array
    text: jax.Array
    real: jax.Array  # neither is padding


def _ranks_of_a_device(
    axes: tuple[str, ...], zimg: jax.Array, ztxt: jax.Array, owners: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    blocks, size, _ = zimg.shape
    first = lax.axis_index(axes) * blocks * size
    width = owners.shape[1]

    def sweep(visit: Any, of_images: Any, of_texts: Any, *, own_only: bool) -> Any:
        """Calls `visit` with every block; it updates what is known of its images and texts."""

        def over_chunks(of_images: Any, chunk: Any) -> Any:
            number, part, owner, of_texts = chunk
            texts = lax.all_gather(part, axes, tiled=True)

            def over_blocks(of_texts: Any, block: Any) -> Any:
                place, images, of_images = block
                image = first + place * size + jnp.arange(size, dtype=jnp.int32)
                text = number * width + jnp.arange(width, dtype=jnp.int32)
                own = image[:, None] == owner[None]

                def update() -> Any:
                    similarity = jnp.dot(images, texts.T, precision=lax.Precision.HIGHEST)
                    real = (image < count)[:, None] & (owner >= 0)[None]
                    block = _Block(similarity, own, image[:, None], text[None], real)
                    return visit(block, of_images, of_texts)

                # Texts mostly come in the order of their images: few blocks hold any own.
                wanted = own.any() if own_only else True
                of_images, of_texts = lax.cond(wanted, update, lambda: (of_images, of_texts))
                return of_texts, of_images

            numbers = jnp.arange(blocks, dtype=jnp.int32)
            of_texts, of_images = lax.scan(over_blocks, of_texts, (numbers, zimg, of_images))
            return of_images, of_texts

        numbers = jnp.arange(len(owners), dtype=jnp.int32)
        return lax.scan(over_chunks, of_images, (numbers, ztxt, owners, of_texts))

    lowest = jnp.full((blocks, size), -jnp.inf)
    no_owner = jnp.full((blocks, size), NEVER, jnp.int32)
    (best, index), of_text = sweep(
        _find_own, (lowest, no_owner), jnp.full(owners.shape, -jnp.inf), own_only=True
    )
    # A text's image is on one device, the others still have -inf.
    of_text = lax.pmax(of_text, axes)
    ahead = jnp.zeros((blocks, size), jnp.int32), jnp.zeros(owners.shape, jnp.int32)
    (*_, img2txt), (*_, txt2img) = sweep(
        _count_ahead, (best, index, ahead[0]), (of_text, owners, ahead[1]), own_only=False
    )
    return jnp.where(index == NEVER, NEVER, img2txt), lax.psum(txt2img, axes)


def _find_own(block: _Block, of_images: Any, of_text: jax.Array) -> Any:
    """The best own text so far of each image, the first of equal ones; each text's image."""
    best, index = of_images
    similarity = jnp.where(block.own, block.similarity, -jnp.inf)
    found = similarity.max(axis=1)
    first = jnp.where(block.own & (similarity == found[:, None]), block.text, NEVER).min(axis=1)
    # Chunks come in order: what was found before has the lower index.
    better = found > best
    best, index = jnp.where(better, found, best), jnp.where(better, first, index)
    return (best, index), jnp.maximum(of_text, similarity.max(axis=0))


def _count_ahead(block: _Block, of_images: Any, of_texts: Any) -> Any:
    """Adds how many texts of the block are ahead of each image's, and images of each text's."""
    (best, index, texts), (of_text, owner, images) = of_images, of_texts
    others = block.real & ~block.own
    best, index, of_text, owner = best[:, None], index[:, None], of_text[None], owner[None]
    ahead = others & _before(block.similarity, block.text, best, index)
    texts = texts + ahead.sum(axis=1, dtype=jnp.int32)
    ahead = others & _before(block.similarity, block.image, of_text, owner)
    images = images + ahead.sum(axis=0, dtype=jnp.int32)
    return (of_images[0], of_images[1], texts), (of_texts[0], of_texts[1], images)


def _before(a: jax.Array, number: jax.Array, b: jax.Array, own: jax.Array) -> jax.Array:
    return (a > b) | ((a == b) & (number < own))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
