"""Recipes: everything that decides how a run ends.

`recipe_file.read_recipe` makes one from TOML. Tables that contradict each other are errors
before anything is read or compiled. Nothing here imports jax.
"""

import dataclasses
import json
import re
from typing import Any

from siglip_jax import checkpoints
from siglip_jax.config import Execution, NaFlexVision, Siglip, Size, Text, Vision
from siglip_jax.data.augmentation import Augmentation
from siglip_jax.preprocessing import Profile, custom_profile
from siglip_jax.training.recipe_tables import (
    Data,
    Devices,
    Evaluate,
    ImageTower,
    Init,
    Lora,
    Loss,
    Model,
    Optimizer,
    ParameterRule,
    Preprocessing,
    RecipeError,
    Save,
    TextTower,
)


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
    init: Init = dataclasses.field(default_factory=Init)
    preprocessing: Preprocessing | None = None
    augmentation: Augmentation | None = None
    loss: Loss = dataclasses.field(default_factory=Loss)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    parameters: tuple[ParameterRule, ...] = ()
    lora: Lora | None = None
    execution: Execution = dataclasses.field(default_factory=Execution)
    devices: Devices = dataclasses.field(default_factory=Devices)
    evaluate: Evaluate | None = None
    save: Save = dataclasses.field(default_factory=Save)

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
        if self.lora and not self.init.model:
            raise RecipeError("[lora] adds to a trained model; name it as init.model")
        if self.data.cache_images and self.augmentation:
            raise RecipeError(
                "data.cache_images embeds every image once, so it cannot be augmented; "
                "leave out [augmentation]"
            )
        if not 0 <= self.data.max_error_share < 1:
            raise RecipeError(
                f"data.max_error_share is a share below 1, got {self.data.max_error_share}"
            )
        if self.execution.weights not in (None, "float32"):
            raise RecipeError(
                f"execution.weights={self.execution.weights!r} is for scoring: weights are trained "
                "in float32; for quicker matmuls set execution.dtype"
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
