"""Architecture of a SigLIP model, and separately how to execute it.

`Siglip` and its parts say what a checkpoint *is*: changing any field changes
the parameter tree or the meaning of the weights. `Execution` says how to run
it: changing a field there changes speed, memory or rounding, never what the
weights mean. Nothing in this module imports jax, so the command line can print
tables without paying for it.

Nothing is derived that a checkpoint states: heads and MLP width come from the
table of sizes (big_vision `models/vit.py`, `decode_variant`), because
`width // 64` is wrong for So400m and g-opt and no shape check would notice.
"""

import dataclasses
from typing import Any, Literal

from siglip_jax.messages import choose

# A configuration may come from anyone, and work grows with what it says. Nobody has trained
# a hundredth of these.
_MOST = {"depth": 1024, "res": 1 << 14, "length": 1 << 16, "canvas": 1 << 12}
_MOST_OTHERWISE = 1 << 24


def _require_positive(owner: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{owner}: {name} must be a positive integer, got {value!r}")
    most = _MOST.get(name, _MOST_OTHERWISE)
    if value > most:
        raise ValueError(f"{owner}: {name} may be at most {most:,}, got {value:,}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Width, depth, MLP width and number of heads of one transformer."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _require_positive(type(self).__name__, field.name, getattr(self, field.name))
        if self.width % self.num_heads:
            raise ValueError(
                f"Size: width {self.width} is not a multiple of num_heads {self.num_heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads


SIZES: dict[str, Size] = {
    "B": Size(width=768, depth=12, mlp_dim=3072, num_heads=12),
    "L": Size(width=1024, depth=24, mlp_dim=4096, num_heads=16),
    "So400m": Size(width=1152, depth=27, mlp_dim=4304, num_heads=16),
    "g-opt": Size(width=1536, depth=40, mlp_dim=6144, num_heads=16),
}


# How an image tower makes one embedding of its patches: by an attention head, as every SigLIP
# was released; by their mean; or not at all, as in models that hand the patches to another.
Pool = Literal["map", "gap", "none"]
POOLS: tuple[str, ...] = ("map", "gap", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vision:
    """A ViT at one fixed square resolution.

    `pool` is "map" for SigLIP's attention head; towers without it ("headless") are pooled by
    the mean of their patches ("gap") or give the patches alone ("none").
    """

    size: Size
    patch: int
    res: int
    pool: Pool = "map"

    def __post_init__(self) -> None:
        for name in ("patch", "res"):
            _require_positive("Vision", name, getattr(self, name))
        choose("Vision: pool", self.pool, POOLS)
        if self.res < self.patch:
            raise ValueError(f"Vision: res {self.res} is smaller than patch {self.patch}")

    @property
    def grid(self) -> int:
        """Patches per side. 384 px with patch 14 gives 27: the last 6 px are cut off."""
        return self.res // self.patch


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaFlexVision:
    """A ViT for any aspect ratio and sequence length (SigLIP 2 NaFlex).

    `posemb_grid` is the side of the learned position-embedding grid, `canvas`
    the largest number of patches per side (big_vision's `learn_2d(64)`), `pool` as in `Vision`.
    """

    size: Size
    patch: int
    posemb_grid: int = 16
    canvas: int = 64
    pool: Pool = "map"

    def __post_init__(self) -> None:
        choose("NaFlexVision: pool", self.pool, POOLS)
        for name in ("patch", "posemb_grid", "canvas"):
            _require_positive("NaFlexVision", name, getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A bidirectional text transformer that pools its last position.

    `head` is the width of the output projection; None means that the tower has
    none (SigLIP So400m i18n).
    """

    size: Size
    vocab_size: int
    length: int
    head: int | None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "length"):
            _require_positive("Text", name, getattr(self, name))
        if self.head is not None:
            _require_positive("Text", "head", self.head)


Tower = Literal["image", "text"]
_PARTS: dict[Tower, str] = {"image": "vision", "text": "text"}
_TOWER: dict[Tower, str] = {"image": "an image tower", "text": "a text tower"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Siglip:
    """An image tower and a text tower with a temperature `t` and a bias `b`, or one tower alone.

    Raises:
      ValueError: if there is no tower, the embeddings of the two differ in width, or images
        have no embedding that a text could be compared with.

    >>> base = Siglip(vision=Vision(size=SIZES["B"], patch=16, res=224),
    ...               text=Text(size=SIZES["B"], vocab_size=32_000, length=64, head=768))
    >>> base.embed_dim, base.vision.grid, base.only("text").tower
    (768, 14, 'text')
    """

    vision: Vision | NaFlexVision | None
    text: Text | None

    def __post_init__(self) -> None:
        if self.vision is None and self.text is None:
            raise ValueError("Siglip: there is no tower; give vision, text, or both")
        if self.vision is None or self.text is None:
            return
        if self.vision.pool == "none":
            raise ValueError(
                "Siglip: an image tower with pool='none' gives patches and no embedding to "
                "compare texts with; leave out text, or set pool"
            )
        ztxt = self.text.size.width if self.text.head is None else self.text.head
        if ztxt != self.embed_dim:
            raise ValueError(
                f"Siglip: image embeddings are {self.embed_dim} wide and text embeddings "
                f"{ztxt}; set text.head={self.embed_dim}"
            )

    @property
    def embed_dim(self) -> int:
        """Width of `zimg` and `ztxt`."""
        if self.vision is not None:
            return self.vision.size.width
        return self.text_tower.head or self.text_tower.size.width

    @property
    def naflex(self) -> bool:
        return isinstance(self.vision, NaFlexVision)

    @property
    def pool(self) -> Pool | None:
        """How the image tower makes one embedding of its patches; None without one."""
        return None if self.vision is None else self.vision.pool

    @property
    def towers(self) -> tuple[Tower, ...]:
        """Those that there are."""
        return tuple(tower for tower, part in _PARTS.items() if getattr(self, part) is not None)

    @property
    def tower(self) -> Tower | None:
        """The only tower; None if there are both."""
        return self.towers[0] if len(self.towers) == 1 else None

    @property
    def image_tower(self) -> Vision | NaFlexVision:
        """`vision`, where it is needed; a ValueError where there is none."""
        self.needs("image", what="images")
        assert self.vision is not None
        return self.vision

    @property
    def text_tower(self) -> Text:
        """`text`, where it is needed; a ValueError where there is none."""
        self.needs("text", what="texts")
        assert self.text is not None
        return self.text

    def needs(self, *towers: Tower, what: str, name: str = "this model") -> None:
        """Raises a ValueError unless there are these towers.

        >>> text = Text(size=SIZES["B"], vocab_size=32_000, length=64, head=768)
        >>> Siglip(vision=None, text=text).needs("image", "text", what="scores", name="t.npz")
        Traceback (most recent call last):
          ...
        ValueError: t.npz is a text tower alone; scores need an image tower too
        """
        for tower in towers:
            if tower not in self.towers:
                too = " too" if len(towers) > 1 else ""
                raise ValueError(
                    f"{name} is {_TOWER[self.towers[0]]} alone{self._headless() if too else ''}; "
                    f"{what} need {_TOWER[tower]}{too}"
                )

    def _headless(self) -> str:
        if self.pool in (None, "map"):
            return ""
        return ", without the head that brings images to where texts are"

    def needs_pool(self, *, what: str, name: str = "this model") -> None:
        """Raises a ValueError unless an image has one embedding.

        >>> vision = Vision(size=SIZES["B"], patch=16, res=224, pool="none")
        >>> Siglip(vision=vision, text=None).needs_pool(what="embeddings", name="tower/")
        Traceback (most recent call last):
          ...
        ValueError: tower/ is an image tower without pooling (pool='none'), which gives patches ...
        """
        if self.pool == "none":
            raise ValueError(
                f"{name} is an image tower without pooling (pool='none'), which gives patches and "
                f"no {what}; take its patches: Scorer.features, or embed --features encoded"
            )

    def only(self, tower: Tower | None, name: str = "this model") -> "Siglip":
        """One tower of it alone; itself for None.

        Raises:
          ValueError: if it has no such tower.
        """
        if tower is None:
            return self
        self.needs(tower, what=f"{tower}s", name=name)
        return dataclasses.replace(self, **{_PARTS[t]: None for t in self.towers if t != tower})

    def at_resolution(self, res: int) -> "Siglip":
        """The same model for square images of `res` pixels.

        Raises:
          ValueError: for a NaFlex model, which takes any resolution as it is, and for a text
            tower alone.
        """
        if isinstance(self.image_tower, NaFlexVision):
            raise ValueError("a NaFlex model has no fixed resolution to change")
        return dataclasses.replace(self, vision=dataclasses.replace(self.image_tower, res=res))


# Patches as a layer of the image tower gives them: "encoded" after the last norm, as the tower
# itself calls it, or after so many blocks.
Layer = int | Literal["encoded"]


def layer_name(layer: Layer) -> str:
    """What `--features` calls a layer.

    >>> layer_name(-2), layer_name("encoded")
    ('blocks=-2', 'encoded')
    """
    return layer if isinstance(layer, str) else f"blocks={layer}"


def check_layer(layer: Layer, config: Siglip) -> Layer:
    """`layer`, if the image tower has it.

    Args:
      layer: "encoded" for the patches after the final norm; else after how many blocks, before
        that norm, which is the index into `hidden_states` of transformers: 0 before the first
        block, 1 after it, -1 after the last, -2 after the last but one (LLaVA's
        `vision_feature_layer`).
      config: the model.

    Raises:
      ValueError: if it has not.
    """
    depth = config.image_tower.size.depth
    if layer == "encoded":
        return layer
    if type(layer) is not int:
        former = ", which is called 'encoded' now" if layer == "final" else ""
        raise ValueError(f"a layer is a number of blocks, or 'encoded', got {layer!r}{former}")
    if not -depth - 1 <= layer <= depth:
        raise ValueError(
            f"blocks={layer}: the image tower has {depth} blocks, so that it must lie in "
            f"{-depth - 1}..{depth}"
        )
    return layer


def check_image_output(layer: Layer | None, config: Siglip, name: str) -> None:
    """Raises a ValueError unless the model makes that of an image.

    Args:
      layer: patches of this layer; None for embeddings.
      config: the model.
      name: what to call it.
    """
    if layer is None:
        config.needs_pool(what="embedding of an image", name=name)
    else:
        check_layer(layer, config)


Attention = Literal["auto", "matmul", "xla", "cudnn", "einsum"]
ATTENTIONS: tuple[str, ...] = ("auto", "matmul", "xla", "cudnn", "einsum")
DTYPES: tuple[str, ...] = ("float32", "bfloat16")
WEIGHTS: tuple[str, ...] = (*DTYPES, "float16", "int8")
Activations = Literal["auto", "float"]
ACTIVATIONS: tuple[str, ...] = ("auto", "float")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How to run a model. Never part of what a checkpoint means.

    Attributes:
      dtype: matmul dtype of the image tower's stem and blocks, big_vision's
        `dtype_mm`. The MAP head and the text tower stay in float32 unless
        `text_dtype` says otherwise.
      text_dtype: the same for the text tower. big_vision has no such setting, so
        the default is float32 whatever `dtype` is.
      weights: how weights are stored: "float32", "bfloat16" (activations between blocks
        are bfloat16 then too, where `dtype` is), "float16", or "int8" with a scale for
        every output channel (`weights.int8`); default: as stored. What is stored in less
        than `dtype` is raised to it where it is used. The temperature and the bias are
        never made coarser. int8 is for scoring only, float16 is trained only if said here.
      activations: what int8 weights are multiplied with in the scorer: "float" is `dtype`;
        "auto" is 8 bits, with a scale and a minimum for every token, where the processor
        multiplies those fast (x86 with AVX-512 VNNI), and else "float". Nothing else asks.
      scan_image, scan_text: one scanned block with a leading depth axis instead
        of a Python loop; compiles faster, and the parameter tree has that axis.
      remat: recompute blocks in the backward pass (a name from
        `jax.checkpoint_policies`, or None).
      attention: implementation of attention; all agree within rounding. "auto" takes the
        one for the device (`models.attention.chosen_attention`).
      micro_batch: how many examples of a batch one device works on at a time in the
        scorer; default: as many as its cache holds on a CPU, and elsewhere all.
        A mesh of several devices works on all at a time.
      precision: of float32 matmuls in the scorer: "highest", or "default", which is
        bfloat16 passes on TPU and TF32 on recent GPUs; default: "highest" for
        a float32 image tower, so that float32 means it on every device, and
        "default" for a bfloat16 one.
    """

    dtype: str = "float32"
    text_dtype: str = "float32"
    weights: str | None = None
    activations: Activations = "auto"
    scan_image: bool = False
    scan_text: bool = False
    remat: str | None = None
    attention: Attention = "auto"
    micro_batch: int | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.precision is None:
            precision = "highest" if self.dtype == "float32" else "default"
            object.__setattr__(self, "precision", precision)
        if self.precision not in ("highest", "default"):
            raise ValueError(
                f"Execution: precision must be highest or default, got {self.precision!r}"
            )
        if self.micro_batch is not None:
            _require_positive("Execution", "micro_batch", self.micro_batch)
        for name in ("dtype", "text_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(
                    f"Execution: {name} must be one of {', '.join(DTYPES)}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.weights is not None:
            choose("Execution: weights", self.weights, WEIGHTS)
        choose("Execution: activations", self.activations, ACTIVATIONS)
        if self.weights == "int8" and self.remat is not None:
            raise ValueError(
                "Execution: remat is for training, and int8 weights have no gradient; "
                "leave out one of them"
            )
        if self.attention not in ATTENTIONS:
            raise ValueError(
                f"Execution: attention must be one of {', '.join(ATTENTIONS)}, "
                f"got {self.attention!r}"
            )


_NONE = "not a model configuration"


def to_dict(config: Siglip) -> dict[str, Any]:
    """A `Siglip` as plain JSON types; `from_dict` is its inverse."""
    plain = dataclasses.asdict(config)
    if plain["vision"] is not None:
        plain["vision"]["type"] = "naflex" if config.naflex else "fixed"
        # Left out where it is what it always was, so that what was written before stays the same.
        if config.pool == "map":
            del plain["vision"]["pool"]
    return plain


def from_dict(plain: dict[str, Any]) -> Siglip:
    """The `Siglip` that `to_dict` wrote.

    Raises:
      ValueError: if a field is missing, unknown or out of range.

    >>> from siglip_jax.checkpoints import find
    >>> config = find("siglip_b16_224").config
    >>> from_dict(to_dict(config)) == config
    True
    """
    for part in _PARTS.values():
        if part not in plain:
            raise ValueError(f"{_NONE}: there is no {part!r}")
    return Siglip(vision=_vision(plain["vision"]), text=_text(plain["text"]))


def _vision(plain: Any) -> Vision | NaFlexVision | None:
    if plain is None:
        return None
    fields = _object(plain, "vision")
    kinds = {"fixed": Vision, "naflex": NaFlexVision}
    kind = fields.pop("type", None)
    if kind not in kinds:
        raise ValueError(f"{_NONE}: vision.type is {kind!r}, expected one of {', '.join(kinds)}")
    return _made(kinds[kind], fields, "vision")


def _text(plain: Any) -> Text | None:
    return None if plain is None else _made(Text, _object(plain, "text"), "text")


def _made(kind: Any, fields: dict[str, Any], where: str) -> Any:
    """The dataclass `kind`, of these fields and no others."""
    if "size" in fields and kind is not Size:
        fields["size"] = _made(Size, _object(fields["size"], f"{where}.size"), f"{where}.size")
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            raise ValueError(f"{_NONE}: {where}.{name} is unknown")
    for name, default in known.items():
        if default is dataclasses.MISSING and name not in fields:
            raise ValueError(f"{_NONE}: {where}.{name} is missing")
    return kind(**fields)


def _object(plain: Any, where: str) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ValueError(f"{_NONE}: {where} is {plain!r}, expected an object")
    return dict(plain)
