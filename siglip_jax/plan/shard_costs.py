"""What each shard of a job costs, of images whose sizes have a heavy tail."""

from typing import NamedTuple

import numpy as np

from siglip_jax.plan.measured import DECODING

PIXELS = 500 * 375
BYTES = 42_000  # of a JPEG of so many pixels: the mean of benchmarks/decode_speed.py's
_DISTINCT = 2048  # shards that are drawn image by image; longer jobs have these again


class ShardCosts(NamedTuple):
    """An array each, (shards,).

    Attributes:
      items: images.
      cpu: seconds on one core.
      device: seconds of the device of one process.
      nbytes: that are read.
    """

    items: np.ndarray
    cpu: np.ndarray
    device: np.ndarray
    nbytes: np.ndarray


def draw_costs(
    items: int,
    shard_size: int,
    *,
    device_rate: float,
    rng: np.random.Generator,
    spread: float = 1.0,
    pixels: float = PIXELS,
    nbytes: float = BYTES,
    core_rate: float = DECODING.core,
) -> ShardCosts:
    """The shards of a job on `items` images.

    Pixels are lognormal: with `spread` 1, one image in a hundred has six times the mean and one
    in ten thousand twenty-five times. Their mean stays what it is, whatever the spread.

    Args:
      device_rate: images a second on the device of one process.
      spread: standard deviation of the logarithm; 0 for images that are all alike.
      pixels, nbytes: of an image, on average.
      core_rate: images of the mean size that one core decodes in a second.

    >>> costs = draw_costs(5000, 2048, device_rate=1e3, rng=np.random.default_rng(0))
    >>> costs.items.tolist(), bool(costs.cpu[0] > costs.cpu[2])
    ([2048, 2048, 904], True)
    """
    count = -(-items // shard_size)
    sizes = np.full(count, shard_size, np.int64)
    sizes[-1] = items - (count - 1) * shard_size
    drawn = np.array([
        np.exp(rng.normal(-(spread**2) / 2, spread, shard_size)).mean()
        for _ in range(min(count, _DISTINCT))
    ])  # fmt: skip
    share = drawn[rng.integers(len(drawn), size=count)] if count > len(drawn) else drawn
    # Part of what an image costs a core does not depend on how large it is.
    fixed = DECODING.seconds / (DECODING.seconds + DECODING.seconds_per_pixel * pixels)
    each = (fixed + (1 - fixed) * share) / core_rate
    return ShardCosts(sizes, sizes * each, sizes / device_rate, sizes * nbytes * share)
