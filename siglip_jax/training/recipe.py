"""Recipes: everything that decides how a run ends, a dataclass for each table of the file.

`recipe_file.read_recipe` makes one from TOML. Tables that contradict each other are errors
before anything is read or compiled. Nothing here imports jax.
"""

import dataclasses
import json
import re
from typing import Any, Literal

from siglip_jax import checkpoints
from siglip_jax.config import Execution, NaFlexVision, Siglip, Size, Text, Vision
from siglip_jax.data.augmentation import Augmentation
from siglip_jax.preprocessing import Profile, custom_profile
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
    """`[data]`: pictures with captions.

    Attributes:
      train: what `siglip_jax.data.open_pairs` opens.
      image, caption: names of columns or extensions, where they are not the usual ones.
      workers: processes that prepare batches; 0 uses threads only.
      max_unreadable: the share of pictures that may be unreadable before the run stops.
      cache_images: embed every picture once, before training, and never again. For a
        frozen image tower; pictures are then not augmented.
    """

    train: str
    image: str | None = None
    caption: str | None = None
    workers: int = 0
    max_unreadable: float = 0.01
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
class Rule:
    """`[[parameters]]`: what is different for some; the first pattern that fits a name holds.

    Attributes:
      pattern: regular expression for the whole name, such as `img/.*`.
      frozen: leave them alone, to the last bit.
      lr: multiplies the learning rate.
      weight_decay: multiplies the weight decay. Unless given, 1 for kernels and 0 for
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
    image: str | None = None
    caption: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Save:
    """`[save]`: a checkpoint to resume from, every so many steps; the last `keep` stay."""

    every: int = 1000
    keep: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of a run.

    Attributes:
      steps: updates of the weights.
      batch: pairs in one, over all devices.
      accumulate: parts that a batch is embedded in, one after the other. The loss stays
        that of the whole batch; only memory changes.
    """

    steps: int
    batch: int
    seed: int = 0
    accumulate: int = 1
    data: Data
    model: Model | None = None
    init: Init = Init()
    preprocessing: Preprocessing | None = None
    augmentation: Augmentation | None = None
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    parameters: tuple[Rule, ...] = ()
    execution: Execution = dataclasses.field(default_factory=Execution)
    devices: Devices = Devices()
    evaluate: Evaluate | None = None
    save: Save = Save()

    def __post_init__(self) -> None:
        for name, number in (
            ("steps", self.steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("save.every", self.save.every),
            ("save.keep", self.save.keep),
            ("evaluate.every", self.evaluate.every if self.evaluate else 1),
        ):
            if number < 1:
                raise RecipeError(f"{name} must be at least 1, got {number}")
        if self.batch % self.accumulate:
            raise RecipeError(f"accumulate={self.accumulate} does not divide batch={self.batch}")
        if self.init.model and (self.init.image or self.init.text):
            raise RecipeError("init.model gives both towers; leave out init.image and init.text")
        if self.init.model and self.model:
            raise RecipeError("init.model brings its own architecture; leave out [model]")
        if not self.init.model and not self.model:
            raise RecipeError("there is neither a [model] nor init.model")
        if self.init.model and self.preprocessing:
            raise RecipeError("init.model brings its own preprocessing; leave out [preprocessing]")
        if self.model and bool(self.model.like) == bool(self.model.image or self.model.text):
            raise RecipeError("[model] takes either like or both of image and text")
        if self.model and bool(self.model.image) != bool(self.model.text):
            raise RecipeError("[model] takes both of image and text")
        if self.data.cache_images and self.augmentation:
            raise RecipeError(
                "data.cache_images embeds every picture once, so it cannot be augmented; "
                "leave out [augmentation]"
            )
        if not 0 <= self.data.max_unreadable < 1:
            raise RecipeError(
                f"data.max_unreadable is a share below 1, got {self.data.max_unreadable}"
            )
        if self.loss.name == "softmax" and self.loss.chunk:
            raise RecipeError("the softmax loss has no chunks; leave out loss.chunk")
        if self.optimizer.warmup >= self.steps > 1:
            raise RecipeError(
                f"optimizer.warmup={self.optimizer.warmup} is not below steps={self.steps}"
            )
        for rule in self.parameters:
            try:
                re.compile(rule.pattern)
            except re.error as error:
                raise RecipeError(
                    f"parameters: {rule.pattern!r} is no regular expression: {error}"
                ) from None

    @property
    def config(self) -> Siglip | None:
        """The architecture of `[model]`; None where `init.model` brings it."""
        if self.model is None:
            return None
        if self.model.like:
            return checkpoints.find(self.model.like).config
        image, text = self.model.image, self.model.text
        assert image and text, "checked above"
        vision: Vision | NaFlexVision
        if image.posemb_grid is not None:
            vision = NaFlexVision(
                size=_size(image), patch=image.patch, posemb_grid=image.posemb_grid
            )
        elif image.res is not None:
            vision = Vision(size=_size(image), patch=image.patch, res=image.res)
        else:
            raise RecipeError("[model.image] needs res, or posemb_grid for NaFlex")
        return Siglip(
            vision=vision,
            text=Text(
                size=_size(text),
                vocab_size=text.vocab_size,
                length=text.length,
                head=image.width,
            ),
        )

    @property
    def profile(self) -> Profile | None:
        """The preprocessing; None where `init.model` brings it."""
        if self.model is None or self.config is None:
            return None
        known = checkpoints.find(self.model.like).vocabulary if self.model.like else None
        changes = self.preprocessing or Preprocessing(pad=known.pad if known else 1)
        profile = custom_profile(self.config, changes.pad, vocabulary=known and known.name)
        image = dataclasses.replace(
            profile.image,
            decode=changes.decode,
            resize=changes.resize or profile.image.resize,
            crop=changes.crop,
            background=changes.background,
        )
        text = dataclasses.replace(profile.text, lower=changes.lower, clean=changes.clean)
        name = "big_vision" if (image, text) == (profile.image, profile.text) else "custom"
        return Profile(name=name, image=image, text=text)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def _size(tower: ImageTower | TextTower) -> Size:
    return Size(
        width=tower.width,
        depth=tower.depth,
        mlp_dim=tower.mlp_dim,
        num_heads=tower.num_heads,
    )
