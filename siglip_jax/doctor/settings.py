"""The settings of a pipeline around a SigLIP model, and the ways in which they are set wrong.

One dataclass for each tower. Values that the model's own pipeline has come from its
profile (`correct`); `candidates` are the wrong ones that are known from other systems.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.config import NaFlexVision, Siglip, Text, Vision
from siglip_jax.messages import did_you_mean

if TYPE_CHECKING:  # The command line looks here for what `--help` says, and is quick.
    from siglip_jax.preprocessing.profiles import ImageProfile, Profile

# Setting to its values in words; numbers are checked apart. The first lines of each class
# say what they mean, and `siglip-jax doctor --help` repeats it.
CHOICES: dict[str, tuple[str, ...]] = {
    "framing": ("squash", "center_crop", "aspect"),
    "resize": (
        *("tf_bilinear", "tf_antialias", "pil_bilinear", "pil_bicubic"),
        *("torch_bilinear", "torch_bicubic"),
    ),
    "normalisation": ("half", "clip", "imagenet", "zero_one"),
    "posemb": ("corners", "bilinear", "bilinear_antialias", "bicubic", "bicubic_antialias"),
    "activation": ("tanh", "erf"),
    "padding": ("max_length", "longest", "left"),
    "eos": ("sticky", "cut", "none"),
    "lower": ("ascii", "unicode", "none"),
    "punctuation": ("keep", "delete", "canonicalize", "whitespace"),
    "mask": ("none", "padding"),
    "pooling": ("last", "eos"),
}
_CLEAN = {"none": "keep", "delete_punctuation": "delete"}  # the others are called the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What can be wrong before and in an image tower.

    Attributes:
      framing: "squash" to the model's shape, "center_crop" of the shorter side, "aspect"
        kept (NaFlex only).
      resize: tf_bilinear has no antialias, all others have; tf truncates to whole grey
        levels (NaFlex: stays float), pil and torch round.
      res: side of the input in pixels; for NaFlex the number of patches.
      normalisation: "half" gives [-1, 1]; CLIP's or ImageNet's mean and standard
        deviation; "zero_one" gives [0, 1].
      posemb: how the position embedding is brought to another grid. "corners" are aligned
        in big_vision's; NaFlex has "bilinear_antialias"; transformers interpolates
        "bicubic", timm "bicubic_antialias".
      activation: "tanh" form of GELU, or exact ("erf").
    """

    framing: str
    resize: str
    res: int
    normalisation: str = "half"
    posemb: str
    activation: str = "tanh"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What can be wrong before and in a text tower.

    Attributes:
      padding: to the full length; only to the longest text, here the text itself; or in
        front of the text ("left").
      pad: id that fills a text up.
      length: tokens at which texts are cut, and to which they are padded.
      eos: the end-of-text id stays when a text is cut ("sticky"), is cut off with the
        rest ("cut"), or never added ("none").
      lower, punctuation: as in `TextProfile.lower` and `.clean`.
      mask: "padding" hides padding from attention; SigLIP has no mask.
      pooling: at the last position, or at the first end-of-text id, as in CLIP.
      activation: as for images.
    """

    padding: str = "max_length"
    pad: int
    length: int
    eos: str = "sticky"
    lower: str
    punctuation: str
    mask: str = "none"
    pooling: str = "last"
    activation: str = "tanh"


# What each normalisation subtracts and divides by.
MEAN_AND_STD = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "zero_one": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

Settings = ImageSettings | TextSettings
# Some of the settings of one tower, as (setting, value); the others are right.
Changes = tuple[tuple[str, Any], ...]


def choose(key: str, value: str) -> str:
    """`value`, if it is one of the setting's.

    Raises:
      ValueError: if it is not; the message offers near names.

    >>> choose("pooling", "lats")
    Traceback (most recent call last):
      ...
    ValueError: pooling must be last or eos, got 'lats'; did you mean last?
    """
    choices = CHOICES[key]
    if value in choices:
        return value
    known = f"{', '.join(choices[:-1])} or {choices[-1]}"
    raise ValueError(f"{key} must be {known}, got {value!r}{did_you_mean(value, choices)}")


def with_antialias(resize: str, antialias: bool) -> str:
    """The resize that is `resize` with or without antialias.

    Raises:
      ValueError: for bicubic without antialias, which is not modelled.

    >>> with_antialias("tf_bilinear", True)
    'tf_antialias'
    """
    if antialias:
        return "tf_antialias" if resize == "tf_bilinear" else resize
    if resize.endswith("bicubic"):
        raise ValueError(f"resize {resize} always has antialias here; tf_bilinear has none")
    return "tf_bilinear"


def correct(config: Siglip, profile: "Profile") -> tuple[ImageSettings | None, TextSettings | None]:
    """The settings as a model's own profile sets them; None of a tower that there is not.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.preprocessing.profiles import profile_for
    >>> image, text = correct(find("siglip_b16_224").config, profile_for(find("siglip_b16_224")))
    >>> image.resize, image.res, text.pad, text.lower
    ('tf_bilinear', 224, 1, 'ascii')
    """
    text, texts = profile.text, None
    if config.text is not None:
        texts = TextSettings(
            pad=text.pad,
            length=text.length,
            lower=text.lower,
            punctuation=_CLEAN.get(text.clean, text.clean),
        )
    return _correct_image(config.vision, profile.image) if config.vision else None, texts


def _correct_image(vision: Vision | NaFlexVision, image: "ImageProfile") -> ImageSettings:
    normalisation = _normalisation(image, fixed=isinstance(vision, Vision))
    if isinstance(vision, Vision):
        framing = {"squash": "squash", "shortest": "center_crop"}[image.fit]
        res, posemb = image.res or vision.res, "corners"
    else:
        framing = "aspect" if image.res is None else "squash"
        res, posemb = image.max_patches or vision.posemb_grid**2, "bilinear_antialias"
    return ImageSettings(
        framing=framing,
        resize=image.resize,
        res=res,
        posemb=posemb,
        normalisation=normalisation,
    )


def _normalisation(image: "ImageProfile", *, fixed: bool) -> str:
    """Of a profile whose other settings are known here too.

    Raises:
      ValueError: for what a folder of another system can say and the doctor does not model.
    """
    from siglip_jax.preprocessing.image_settings import range_of, settings_of

    said = settings_of(image)
    known = {range_of(mean, std): name for name, (mean, std) in MEAN_AND_STD.items()}
    unknown = [
        f"{name} {said[name]}"
        for name, models in (
            ("resize", image.resize in CHOICES["resize"]),
            ("fit", image.fit in (("squash", "shortest") if fixed else ("squash",))),
            ("crop", said["crop"] == "none"),
            ("mean", image.value_range in known),
            ("std", image.value_range in known),
        )
        if not models
    ]
    if unknown:
        raise ValueError(
            f"the doctor does not model {', '.join(unknown)}, which the model's own profile has; "
            "give it another profile, such as big_vision"
        )
    return known[image.value_range]


def check(image: ImageSettings | None, text: TextSettings | None, config: Siglip) -> None:
    """Raises a ValueError if a pipeline with these settings could not run the model at all."""
    if image is not None:
        _check_image(image, config)
    if text is not None:
        _check_text(text, config.text_tower)


def _check_image(image: ImageSettings, config: Siglip) -> None:
    vision = config.vision
    odd = "center_crop" if config.naflex else "aspect"
    if image.framing == odd:
        kind = "a NaFlex" if config.naflex else "a fixed-resolution"
        raise ValueError(f"framing {odd} is not for {kind} model")
    if isinstance(vision, Vision) and image.res < vision.patch:
        raise ValueError(f"res must be at least one patch, {vision.patch}, got {image.res}")


def _check_text(text: TextSettings, tower: Text) -> None:
    if not 1 <= text.length <= tower.length:
        raise ValueError(f"length must be from 1 to {tower.length}, got {text.length}")
    if not 0 <= text.pad < tower.vocab_size:
        raise ValueError(f"pad must be an id below {tower.vocab_size}, got {text.pad}")


def candidates(right: Settings, config: Siglip) -> list[tuple[str, Any]]:
    """Every wrong value of every setting that a real pipeline is known to have."""
    if isinstance(right, TextSettings):
        values: dict[str, tuple[Any, ...]] = {
            # 16 of 64 is the default of big_vision's evaluators.
            "length": (right.length // 4, right.length // 2),
            "pad": (0, 1),
        }
    else:
        values = {
            "framing": ("squash", "aspect" if config.naflex else "center_crop"),
            # torch's are within a few grey levels of pil's, which is rounding and no fault:
            # transformers resizes by either, and torchvision on a GPU rounds in a third way.
            "resize": tuple(
                name
                for name in ("tf_bilinear", "tf_antialias", "pil_bilinear", "pil_bicubic")
                if name != right.resize.replace("torch_", "pil_")
            ),
            "res": _resolutions(right.res, config),
            "posemb": CHOICES["posemb"][config.naflex :],
        }
    return [
        (field.name, value)
        for field in dataclasses.fields(right)
        for value in values.get(field.name, CHOICES.get(field.name, ()))
        if value != getattr(right, field.name)
    ]


def _resolutions(res: int, config: Siglip) -> tuple[int, ...]:
    """Sizes a pipeline may have by mistake: whole patches, and those of other checkpoints."""
    vision = config.vision
    if not isinstance(vision, Vision):
        # The sequence lengths that NaFlex was trained with.
        return tuple(n for n in (128, 256, 576, 784, 1024) if res / 2 <= n <= 4 * res)
    others = {c.config.vision.res for c in CHECKPOINTS if isinstance(c.config.vision, Vision)}
    near = {other for other in others if res / 2 < other < 2 * res}
    return tuple(sorted(near | {vision.grid * vision.patch}))


def apply(right: Settings, setting: Changes) -> Any:
    """The settings with those of a setting changed."""
    return dataclasses.replace(right, **dict(setting))


def settings_apart(settings: Settings, right: Settings) -> Changes:
    """The setting that makes `settings` out of `right`."""
    names = [field.name for field in dataclasses.fields(right)]
    return tuple(
        (n, getattr(settings, n)) for n in names if getattr(settings, n) != getattr(right, n)
    )


def pairs(singles: list[tuple[str, Any]]) -> Iterator[Changes]:
    """All settings of two different settings.

    >>> list(pairs([("pad", 0), ("eos", "cut"), ("eos", "none")]))
    [(('pad', 0), ('eos', 'cut')), (('pad', 0), ('eos', 'none'))]
    """
    return (pair for pair in itertools.combinations(singles, 2) if pair[0][0] != pair[1][0])
