"""Profiles: everything between a file or a string and a model that changes scores.

Systems that run the same SigLIP weights prepare images and texts differently, and
the scores differ with them. A `Profile` pins one such preparation in full. Three
have names:

* `big_vision` (the default): what the weights were trained and measured with.
* `transformers`: transformers 5, with the processor of the checkpoint's hub repository.
* `open_clip`: open_clip 3.3.

All of them squash a fixed-resolution image to a square without a crop, keep the
end-of-text id when a text is cut, and pad to the full context length. They differ
in this, where 1 and 2 are SigLIP and SigLIP 2 at fixed resolution, N is NaFlex:

| | big_vision | transformers | open_clip |
|---|---|---|---|
| JPEG decoding | fast DCT | accurate | accurate |
| resize | 1, 2: bilinear, no antialias, truncated; N: antialiased, in float | 1: bicubic; \
2, N: bilinear; antialiased, rounded | bicubic, antialiased, rounded |
| EXIF rotation | ignored | applied | ignored |
| lower-casing | A-Z | 1, N: Unicode; 2: none | Unicode |
| punctuation | kept | 1: deleted; 2, N: kept | deleted, `_` becomes a space |

A folder may say other settings (see `converters.folder_images`); what it says is the profile
`folder`.

One deliberate difference from all three systems: they drop an alpha channel, which
shows whatever colour transparent pixels happen to hold. Here an image with alpha is
laid over `ImageProfile.background`, white unless changed; None drops alpha as they do.

Sources: big_vision `configs/proj/image_text/SigLIP_demo.ipynb`, `SigLIP2_demo.ipynb`
and `evaluators/proj/image_text` at 0127fb6; transformers `models/siglip` and
`models/siglip2`; open_clip `pretrained.py` and `tokenizer.py`.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, cast, get_args

from siglip_jax.checkpoints import Checkpoint
from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.messages import choose

Decode = Literal["fastdct", "pillow", "draft"]
Resize = Literal[
    "tf_bilinear", "tf_antialias", "pil_bicubic", "pil_bilinear", "pil_lanczos", "pil_nearest",
    "pil_box", "pil_hamming", "torch_bicubic", "torch_bilinear", "torch_lanczos", "torch_nearest",
]  # fmt: skip
Fit = Literal["squash", "shortest", "longest"]
# A number, or one for each of red, green and blue.
Levels = float | tuple[float, float, float]
PixelRange = tuple[Levels, Levels]
Lower = Literal["ascii", "unicode", "none"]
Clean = Literal["none", "delete_punctuation", "canonicalize", "whitespace"]
ProfileName = Literal["big_vision", "transformers", "open_clip"]
PROFILES: tuple[str, ...] = get_args(ProfileName)
MAX_PIXELS = 89_478_485  # Pillow's own limit
# The name of a profile that the files of a model state, which is no system's.
FOLDER = "folder"
# The fields of an image profile that files written before they existed have not, and what
# such files mean.
ADDED: dict[str, Any] = {"fit": "squash", "fill": [0, 0, 0]}

_MOST_SIDE, _MOST_PATCHES = 1 << 14, 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageProfile:
    """How an image becomes the array that a model sees.

    Attributes:
      decode: how JPEG files are decoded. "fastdct" gives the pixels of
        `tf.io.decode_image`, "pillow" those of Pillow, about one grey level away
        on average. "draft" is "fastdct" at a half, quarter or eighth of the size where
        both sides stay at least `res`: quicker, and other scores (see `decode.drafted`).
        Other formats decode alike in all.
      resize: "tf_bilinear" samples without antialias and truncates to uint8;
        "tf_antialias" works on normalised floats and does not round (NaFlex only);
        `pil_...` and `torch_...` are Pillow's and torchvision's filters of that name,
        antialiased (but for "nearest") and rounded to uint8 after each axis:
        torchvision across first and with weights of 16 bits, Pillow (13 and later) in
        whichever order it finds cheaper, which can differ by 14 grey levels.
      res: side in pixels of the square that images become; None keeps
        the aspect ratio and fills a sequence of `max_patches` (NaFlex).
      max_patches: sequence length of a NaFlex model, None for other models.
      fit: how an image becomes a square: "squash" ignores its aspect ratio, "shortest"
        resizes its shorter side and crops the centre, "longest" resizes its longer
        side and lays it on the centre of a square of colour `fill`.
      crop: share of the side that a central crop keeps, after a resize to
        `int(res / crop)`; big_vision's ImageNet evaluation uses 0.875.
      value_range: what grey levels 0 and 255 become, as numbers or, where colours
        differ, as three each. A mean m and a standard deviation s are the range
        -m/s to (1 - m)/s.
      fill: RGB colour beside the image where `fit` is "longest".
      background: RGB colour behind transparent pixels; None drops alpha.
      exif: whether EXIF orientation is applied. TensorFlow and open_clip ignore it;
        transformers' `load_image`, for a path, applies it.
      max_pixels: an image with more is an error, read from its header (a small
        file can claim to be huge). The default is Pillow's own limit.
    """

    decode: Decode
    resize: Resize
    res: int | None
    max_patches: int | None = None
    fit: Fit = "squash"
    crop: float = 1.0
    value_range: PixelRange = (-1.0, 1.0)
    fill: tuple[int, int, int] = (0, 0, 0)
    background: tuple[int, int, int] | None = (255, 255, 255)
    exif: bool = False
    max_pixels: int = MAX_PIXELS

    @property
    def bounded(self) -> bool:
        """Whether NaFlex grids end at 64 patches a side: in big_vision, and nowhere else."""
        return self.resize == "tf_antialias"

    def __post_init__(self) -> None:
        choose("ImageProfile: decode", self.decode, get_args(Decode))
        choose("ImageProfile: resize", self.resize, get_args(Resize))
        choose("ImageProfile: fit", self.fit, get_args(Fit))
        if self.res is None and self.max_patches is None:
            raise ValueError("ImageProfile: res or max_patches must be given")
        if self.max_patches is None and self.resize == "tf_antialias":
            raise ValueError("ImageProfile: resize tf_antialias is for NaFlex; set max_patches")
        if self.decode == "draft" and self.res is None:
            raise ValueError("ImageProfile: decode draft needs res; NaFlex sizes are not known yet")
        for name in ("res", "max_patches", "max_pixels"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"ImageProfile: {name} must be a positive integer, got {value!r}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"ImageProfile: crop must be above 0 and at most 1, got {self.crop!r}")
        # A profile may come from anyone, and every image is made as large as it says.
        if (self.res or 0) / self.crop > _MOST_SIDE or (self.max_patches or 0) > _MOST_PATCHES:
            raise ValueError(
                f"ImageProfile: images of {self.res} pixels a side (crop {self.crop}) or "
                f"{self.max_patches} patches are larger than {_MOST_SIDE:,} or {_MOST_PATCHES:,}"
            )
        if self.res is None and self.fit != "squash":
            raise ValueError(f"ImageProfile: fit {self.fit} needs res; NaFlex keeps aspect ratios")
        object.__setattr__(self, "value_range", pixel_range(self.value_range))
        if self.background is not None:
            object.__setattr__(
                self, "background", _colour("background", self.background, " or None")
            )
        object.__setattr__(self, "fill", _colour("fill", self.fill))


def pixel_range(given: Any) -> PixelRange:
    """A range with numbers where all colours have the same, else with three each."""
    try:
        ends = [[float(v) for v in (end if isinstance(end, tuple | list) else [end] * 3)]
                for end in given]  # fmt: skip
        low, high = ends
        fits = len(low) == len(high) == 3 and all(a < b for a, b in zip(low, high, strict=True))
    except (TypeError, ValueError):
        fits, low, high = False, [], []
    if not fits:
        raise ValueError(
            "ImageProfile: value_range must be (low, high), numbers or three of them each, got "
            f"{given!r}"
        )
    if len(set(low)) == len(set(high)) == 1:
        return low[0], high[0]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _colour(name: str, given: Any, otherwise: str = "") -> tuple[int, ...]:
    colour = tuple(given) if isinstance(given, Iterable) else ()
    if len(colour) != 3 or any(type(c) is not int or not 0 <= c <= 255 for c in colour):
        raise ValueError(
            f"ImageProfile: {name} must be three integers from 0 to 255{otherwise}, got {given!r}"
        )
    return colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextProfile:
    """How a string becomes the ids that a model sees.

    Attributes:
      vocabulary: name of the sentencepiece vocabulary, a key of
        `checkpoints.VOCABULARIES`; None where it is not a released one.
      rows: rows of the model's token embedding; ids must lie below.
      length: context length. Every text has exactly this many ids, because the
        text tower pools its last position.
      pad: id after the end of a short text.
      eos: id that ends every text and stays when a long text is cut.
      lower: "ascii" lower-cases A to Z only.
      clean: "delete_punctuation" is transformers' SigLIP tokenizer,
        "canonicalize" open_clip's cleaning of SigLIP, "whitespace" the default of its
        tokenizers, which keeps punctuation; see `preprocessing.text`.
    """

    vocabulary: str | None
    rows: int
    length: int
    pad: int
    eos: int = 1
    lower: Lower
    clean: Clean

    def __post_init__(self) -> None:
        choose("TextProfile: lower", self.lower, get_args(Lower))
        choose("TextProfile: clean", self.clean, get_args(Clean))
        for name, least in (("rows", 1), ("length", 1), ("pad", 0), ("eos", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f"TextProfile: {name} must be an integer of at least {least}, got {value!r}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """An image profile and a text profile under one name.

    >>> from siglip_jax.checkpoints import find
    >>> profile = profile_for(find("siglip_b16_224"))
    >>> Profile.from_dict(profile.to_dict()) == profile
    True
    """

    name: str
    image: ImageProfile
    text: TextProfile

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain JSON types; `from_dict` is its inverse."""
        return _listed(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Profile":
        """The profile that `to_dict` wrote.

        Raises:
          ValueError: if a field is missing, unknown or out of range.
        """
        if not isinstance(plain, dict):
            raise ValueError(f"not a preprocessing profile: expected a dict, got {plain!r}")
        parts: dict[str, Any] = dict(plain)
        if isinstance(plain.get("image"), dict):
            plain = {**plain, "image": ADDED | plain["image"]}
        for name, part in (("image", ImageProfile), ("text", TextProfile)):
            parts[name] = _strict(part, f"{name}.", plain.get(name))
        return _strict(cls, "", parts)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, tuple):
        return [_listed(item) for item in cast(tuple[Any, ...], value)]
    return value


def _strict(part: Any, prefix: str, values: Any) -> Any:
    # A field filled from its default would silently change scores when a default
    # changes, so that a saved profile must hold every one.
    names = {field.name for field in dataclasses.fields(part)}
    given = set(values) if isinstance(values, dict) else set()
    problems = [f"{prefix}{name} is missing" for name in sorted(names - given)]
    problems += [f"{prefix}{name} is unknown" for name in sorted(given - names)]
    if problems:
        raise ValueError(f"not a preprocessing profile: {', '.join(problems)}")
    return part(**values)


def profile_for(checkpoint: Checkpoint, name: str = "big_vision") -> Profile:
    """The profile of a released checkpoint in one of three systems.

    Raises:
      ValueError: if `name` is none of `PROFILES`.

    >>> from siglip_jax.checkpoints import find
    >>> profile_for(find("siglip2_so400m14_384"), "open_clip").image.res
    378
    """
    res = checkpoint.open_clip_res if name == "open_clip" else None
    pad = checkpoint.vocabulary.pad
    return custom_profile(checkpoint.config, pad, name, checkpoint.vocabulary.name, res=res)


def custom_profile(
    config: Siglip,
    pad: int,
    name: str = "big_vision",
    vocabulary: str | None = None,
    *,
    res: int | None = None,
) -> Profile:
    """The profile of a model that is not in the table of checkpoints.

    Args:
      config: the model. Of a tower that it has not, the profile says nothing of use.
      pad: padding id. 1 means a model in the manner of SigLIP, 0 of SigLIP 2,
        which `transformers` treats differently.
      name: the system to follow.
      vocabulary: a key of `checkpoints.VOCABULARIES`, to have the vocabulary
        file checked against it.
      res: pixels to feed a fixed-resolution model, where not its own resolution.

    Raises:
      ValueError: if `name` is none of `PROFILES` or `pad` neither 0 nor 1.

    >>> from siglip_jax import find
    >>> profile = custom_profile(find("siglip2_b16_224").config, pad=0)
    >>> profile.image.resize, profile.text.pad, profile.text.length
    ('tf_bilinear', 0, 64)
    """
    choose("profile", name, PROFILES)
    if pad not in (0, 1):
        raise ValueError(f"pad must be 1 (SigLIP) or 0 (SigLIP 2), got {pad!r}")
    naflex = isinstance(config.vision, NaFlexVision)
    decode: Decode = "fastdct" if name == "big_vision" else "pillow"
    resize: Resize
    lower: Lower
    clean: Clean = "none"
    if name == "big_vision":
        # big_vision: `tf.strings.lower` works on bytes, so that only A to Z change.
        resize, lower = ("tf_antialias" if naflex else "tf_bilinear"), "ascii"
    elif name == "transformers":
        if pad == 1:
            resize, lower, clean = "torch_bicubic", "unicode", "delete_punctuation"
        else:
            # Only NaFlex repositories are of type "siglip2", whose tokenizer lower-cases;
            # the others get Gemma's, which ignores the `do_lower_case` they carry.
            resize, lower = "torch_bilinear", "unicode" if naflex else "none"
    else:
        resize, lower, clean = "pil_bicubic", "unicode", "canonicalize"

    vision, text = config.vision, config.text
    if isinstance(vision, NaFlexVision):
        # 256 patches: what README_siglip2.md reports and transformers defaults to.
        # open_clip's configuration squashes to the square of the position embedding instead.
        side = vision.posemb_grid
        square = side * vision.patch if name == "open_clip" else None
        image_res, max_patches = square, side * side
    else:
        image_res, max_patches = res or (vision.res if vision else 1), None
    return Profile(
        name=name,
        image=ImageProfile(
            decode=decode,
            resize=resize,
            res=image_res,
            max_patches=max_patches,
            exif=name == "transformers",
        ),
        text=TextProfile(
            vocabulary=vocabulary,
            rows=text.vocab_size if text else 1,
            length=text.length if text else 1,
            pad=pad,
            lower=lower,
            clean=clean,
        ),
    )
