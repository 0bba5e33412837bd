"""What is measured at which size: at full size, and in a rehearsal on a CPU."""

import dataclasses
from typing import Literal

from siglip_jax.checkpoints import find
from siglip_jax.config import (
    Execution,
    NaFlexVision,
    Siglip,
    Size,
    Text,
    Vision,
)

Tower = Literal["images", "texts", "training"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One tower of one model, at some batch sizes, the likeliest best one first."""

    name: str
    model: str
    tower: Tower
    batches: tuple[int, ...]
    latency: bool = False  # time a batch of one, too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is.

    Attributes:
      cases: towers to time, the most telling first.
      host: the tower, of one size, that is fed from files and from the host's memory.
      training: the model whose training step is timed.
      seconds: of one turn.
      rounds: turns of each contestant.
      workers: what is prepared at the same time, at most, in one part.
      conformance: models of which two layers are compared with the CPU.
      goldens: how many of the golden models; None for all; 0 for nothing but `conformance`.
      pairs: batch of the ring loss, and columns at a time.
      steps, killed, every: of the run that is killed: its length, where, and how often it
        saves.
      files, photographs: JPEG files of the job, and how many of them differ.
    """

    rehearsal: bool
    cases: tuple[Case, ...]
    host: Case
    training: Case
    seconds: float
    rounds: int
    workers: int
    conformance: tuple[str, ...]
    goldens: int | None
    pairs: tuple[tuple[int, int | None], ...]
    steps: int
    killed: int
    every: int
    files: int
    photographs: int


FULL = Scale(
    rehearsal=False,
    cases=(
        Case("B/16-224", "siglip2_b16_224", "images", (256,), latency=True),
        Case("So400m/14-384", "siglip2_so400m14_384", "images", (64,)),
        Case("B/16 texts", "siglip2_b16_224", "texts", (512,)),
        Case("B/16 NaFlex", "siglip2_b16_naflex", "images", (256,)),
        Case("L/16-384", "siglip2_l16_384", "images", (128,)),
        Case("B/16-512", "siglip2_b16_512", "images", (64,)),
        Case("g-opt/16-384", "siglip2_g-opt16_384", "images", (64,)),
    ),
    host=Case("B/16-224", "siglip2_b16_224", "images", (256,)),
    training=Case("training B/16-224", "siglip_b16_224", "training", (256,)),
    seconds=0.5,
    rounds=3,
    workers=8,
    conformance=("siglip2_b16_224", "siglip2_so400m14_384", "siglip2_b16_naflex"),
    goldens=None,
    pairs=((1024, None), (4096, 128)),
    steps=200,
    killed=120,
    every=50,
    files=8_192,
    photographs=64,
)
REHEARSAL = Scale(
    rehearsal=True,
    cases=(
        Case("tiny NaFlex", "tiny_naflex", "images", (2,)),
        Case("tiny", "tiny", "images", (4, 2), latency=True),
        Case("tiny texts", "tiny", "texts", (4,)),
    ),
    host=Case("tiny", "tiny", "images", (4,)),
    training=Case("training tiny", "tiny", "training", (4,)),
    seconds=0.0,
    rounds=2,
    workers=1,
    conformance=("tiny_naflex",),
    goldens=2,
    pairs=((16, None), (32, 8)),
    steps=30,
    killed=8,
    every=5,
    files=24,
    photographs=4,
)

# How the fastest of all systems run: everything in bfloat16, sums in float32.
FAST = Execution(dtype="bfloat16", text_dtype="bfloat16", weights="bfloat16")

_TINY = Size(width=24, depth=2, mlp_dim=52, num_heads=3)
_TINY_TEXT = Text(size=_TINY, vocab_size=64, length=8, head=24)
_TINY_MODELS = {
    "tiny": Siglip(vision=Vision(size=_TINY, patch=8, res=32), text=_TINY_TEXT),
    "tiny_naflex": Siglip(vision=NaFlexVision(size=_TINY, patch=8, posemb_grid=4), text=_TINY_TEXT),
}


def config_of(model: str) -> Siglip:
    """The architecture of a released checkpoint, or of a tiny one."""
    return _TINY_MODELS[model] if model in _TINY_MODELS else find(model).config


def config_for(case: Case) -> Siglip:
    """The model of a case with as little as can be of the tower that it does not use."""
    config = config_of(case.model)
    d = config.embed_dim
    least = Size(width=d, depth=1, mlp_dim=1, num_heads=1)
    if case.tower == "images":
        text = Text(size=least, vocab_size=1, length=1, head=None)
        return dataclasses.replace(config, text=text)
    if case.tower == "texts":
        return dataclasses.replace(config, vision=Vision(size=least, patch=1, res=1))
    return config


def two_layers(config: Siglip) -> Siglip:
    """The same widths, two layers deep, and a vocabulary that a test can afford."""

    def cut(size: Size) -> Size:
        return dataclasses.replace(size, depth=min(2, size.depth))

    text = dataclasses.replace(
        config.text, size=cut(config.text.size), vocab_size=min(1000, config.text.vocab_size)
    )
    vision = dataclasses.replace(config.vision, size=cut(config.vision.size))
    return Siglip(vision=vision, text=text)
