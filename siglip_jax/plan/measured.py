"""Rates that were measured, which plans take for chips and hosts that were not.

All of them stand in benchmarks/RESULTS.md with their commands. A share is of the peak that
`plan.chips` has. Nothing here imports jax.
"""

from typing import NamedTuple

_PEAK = 989.4e12  # H200 in bfloat16, as in `plan.chips`


class Share(NamedTuple):
    """Of a chip's peak, that a program has reached.

    Attributes:
      share: from 0 to 1.
      source: what was measured, where.
    """

    share: float
    source: str


class Decoding(NamedTuple):
    """Files to pixels, by one process of a job or by a core alone.

    Attributes:
      core: images a second on one core.
      process: images a second of one process of a job and the 16 that decode for it, which is
        as many as there are unless more are asked for (`--decode-processes`).
      seconds, seconds_per_pixel: of one image on one core, from two sizes of JPEG files.
      source: of all of these.
    """

    core: float
    process: float
    seconds: float
    seconds_per_pixel: float
    source: str


# 10,415 images/s of B/16-224, 35.4 GFLOP each.
EMBEDDING = Share(
    10_415 * 35.4e9 / _PEAK,
    "B/16-224 in bfloat16 on a quiet H200: 10,415 images/s",
)
# 2,323 examples/s of B/16-224 with 64 tokens: forward, and twice that backward.
TRAINING = Share(
    2_323 * 139.1e9 / _PEAK,
    "a training step of B/16-224 on an H200: 2,323 examples/s",
)
_SMALL, _LARGE = (500 * 375, 848.0), (2000 * 1500, 128.0)  # pixels, images/s of a core
_PER_PIXEL = (1 / _LARGE[1] - 1 / _SMALL[1]) / (_LARGE[0] - _SMALL[0])
DECODING = Decoding(
    core=_SMALL[1],
    process=5289.0,
    seconds=1 / _SMALL[1] - _SMALL[0] * _PER_PIXEL,
    seconds_per_pixel=_PER_PIXEL,
    source=(
        "JPEG of 500x375 on one core of an AMD EPYC: 848 images/s; one process of a job with 16 "
        "that decode for it on 16 cores of a Xeon: 5,289"
    ),
)
