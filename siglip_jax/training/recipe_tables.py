"""The tables of a recipe's file, a dataclass each. Nothing here imports jax."""

import dataclasses
import re
from typing import Literal

from siglip_jax.preprocessing.profiles import Clean, Decode, Lower, Resize


class RecipeError(ValueError):
    """A recipe that says something impossible."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTower:
    """`[model.image]`: a ViT, as in `config.Vision`, or a NaFlex one with `posemb_grid`."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    patch: int
    res: int | None = None
    posemb_grid: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTower:
    """`[model.text]`, as in `config.Text`; the head is as wide as the image tower."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    vocab_size: int
    length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """`[model]`: what is trained.

    Attributes:
      like: a released checkpoint whose architecture to take, in place of `image` and `text`.
      image, text: the towers, spelled out.
      vocabulary: sentencepiece file. A released one is found without it.
      temperature, bias: their values before training (section 3.2 of the paper).
    """

    like: str | None = None
    image: ImageTower | None = None
    text: TextTower | None = None
    vocabulary: str | None = None
    temperature: float = 10.0
    bias: float = -10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """`[preprocessing]`: what differs from big_vision's preparation; see `Profile`."""

    pad: int = 1
    lower: Lower = "ascii"
    clean: Clean = "none"
    decode: Decode = "fastdct"
    resize: Resize | None = None
    crop: float = 1.0
    background: tuple[int, ...] | None = (255, 255, 255)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """`[init]`: weights to begin with, in anything that `siglip_jax.load` takes.

    `model` gives all of them and needs no `[model]`; `image` and `text` give a tower each,
    from two different models if need be.
    """

    model: str | None = None
    image: str | None = None
    text: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """`[data]`: images with captions.

    Attributes:
      train: what `siglip_jax.data.open_pairs` opens.
      image_column, text_column: names of columns or extensions, where they are not the usual
        ones.
      separator: between the fields of a .csv or .tsv, where it is not the usual one.
      workers: processes that prepare batches, and images for `cache_images`; 0 uses threads
        only.
      max_error_share: the share of images that may be unreadable before the run stops.
      cache_images: embed every image once, before training, and never again. For a
        frozen image tower; images are then not augmented.
    """

    train: str
    image_column: str | None = None
    text_column: str | None = None
    separator: str | None = None
    workers: int = 0
    max_error_share: float = 0.01
    cache_images: bool = False


ScheduleName = Literal["cosine", "rsqrt", "linear", "constant"]
OptimizerName = Literal["adamw", "adafactor", "lion"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """`[optimizer]`: see `training.optimizer`. `b2` of 0.95, as the paper finds (section 4.7)."""

    name: OptimizerName = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    b1: float = 0.9
    b2: float = 0.95
    clip: float | None = 1.0
    schedule: ScheduleName = "cosine"
    warmup: int = 0
    cooldown: int = 0
    timescale: int = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterRule:
    """`[[parameters]]`: what is different for some; the first pattern that fits a name holds.

    Attributes:
      pattern: regular expression for the whole name, such as `img/.*`.
      frozen: leave them alone, to the last bit.
      lr: multiplies the learning rate.
      weight_decay: multiplies the weight decay. Default: 1 for kernels and 0 for
        everything else, as in big_vision.
      schedule, warmup, cooldown: in place of the optimizer's.
    """

    pattern: str
    frozen: bool = False
    lr: float = 1.0
    weight_decay: float | None = None
    schedule: ScheduleName | None = None
    warmup: int | None = None
    cooldown: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """`[lora]`: train low-rank additions to some layers, and nothing else; see `training.lora`.

    Attributes:
      rank: of what is added to a kernel.
      alpha: the addition is scaled by alpha / rank; default: rank.
      targets: layers of the blocks of both towers, by their own names ("query", "key", "value",
        "out", "Dense_0", "Dense_1"), or regular expressions for whole names such as
        "img/.*/query".
    """

    rank: int
    alpha: float | None = None
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RecipeError(f"lora.rank must be at least 1, got {self.rank}")
        if self.alpha is not None and self.alpha <= 0:
            raise RecipeError(f"lora.alpha must be above 0, got {self.alpha}")
        if not self.targets:
            raise RecipeError("lora.targets names no layer; leave it out for query and value")
        for target in self.targets:
            try:
                re.compile(target)
            except re.error as error:
                raise RecipeError(
                    f"lora.targets: {target!r} is no regular expression: {error}"
                ) from None

    @property
    def scale(self) -> float:
        """What the product of both factors is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """`[loss]`: "sigmoid", or "softmax" to compare with.

    `chunk`: columns of logits at a time on one device, which must divide its share of the
    batch; None takes the share whole.
    """

    name: Literal["sigmoid", "softmax"] = "sigmoid"
    chunk: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """`[devices]`: "fsdp" splits weights and optimizer state, "replicate" copies them."""

    weights: Literal["replicate", "fsdp"] = "replicate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """`[evaluate]`: recall on held-out pairs, every so many steps and at the end."""

    data: str
    every: int = 1000
    image_column: str | None = None
    text_column: str | None = None
    separator: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Save:
    """`[save]`: a checkpoint to resume from, every so many steps; the last `keep` stay."""

    every: int = 1000
    keep: int = 2
