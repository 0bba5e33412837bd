"""The 27 released SigLIP and SigLIP 2 checkpoints, and how to find one by name.

Sources: big_vision `configs/proj/image_text/SigLIP_demo.ipynb` (SigLIP),
`SigLIP2_demo.ipynb` and `README_siglip2.md` (SigLIP 2) at 0127fb6; accuracy
from table 1 of arXiv 2502.14786, and for SigLIP B/16 i18n from arXiv
2303.15343. Parameter counts are exact and tested with `eval_shape`.
"""

import dataclasses
import functools
import re
from typing import Literal

from siglip_jax.config import SIZES, NaFlexVision, Siglip, Text, Vision
from siglip_jax.messages import suggestions

TokenizerName = Literal["c4_en", "mc4", "gemma"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """One of the three sentencepiece vocabularies.

    Attributes:
      pieces: pieces in the sentencepiece file. mc4 has 100 `<extra_id_*>`
        pieces more than the embedding has rows.
      rows: rows of the token embedding.
      pad: id that fills a text up to the context length; `eos` is 1 in all.
      hub: (repository, file) on the Hugging Face hub that holds it.
      sha256: of the file, which a download has to have; None where nobody has published it.
    """

    name: TokenizerName
    pieces: int
    rows: int
    pad: int
    url: str
    hub: tuple[str, str]
    sha256: str | None = None


_LEAST = 3  # letters that the beginning of a name has, to be one
_STORAGE = "https://storage.googleapis.com"
VOCABULARIES: dict[str, Vocabulary] = {
    "c4_en": Vocabulary(
        name="c4_en", pieces=32_000, rows=32_000, pad=1,
        url=f"{_STORAGE}/t5-data/vocabs/cc_en.32000/sentencepiece.model",
        hub=("google/siglip-base-patch16-224", "spiece.model"),
        sha256="1e5036bed065526c3c212dfbe288752391797c4bb1a284aa18c9a0b23fcaf8ec",
    ),
    "mc4": Vocabulary(
        name="mc4", pieces=250_100, rows=250_000, pad=1,
        url=f"{_STORAGE}/t5-data/vocabs/mc4.250000.100extra/sentencepiece.model",
        hub=("google/siglip-base-patch16-256-multilingual", "spiece.model"),
    ),
    "gemma": Vocabulary(
        name="gemma", pieces=256_000, rows=256_000, pad=0,
        url=f"{_STORAGE}/big_vision/gemma_tokenizer.model",
        hub=("google/siglip2-base-patch16-224", "tokenizer.model"),
        sha256="61a7b147390c64585d6c3543dd6fc636906c9af3865a5548f27f31aee1d4c8e2",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Published accuracy in percent; None where nothing was published.

    Zero-shot top-1 on ImageNet validation, v2, ReaL and ObjectNet, ImageNet
    10-shot, and recall@1 for text-to-image (`t2i`) and image-to-text (`i2t`).
    """

    imagenet: float | None = None
    imagenet_v2: float | None = None
    imagenet_real: float | None = None
    objectnet: float | None = None
    imagenet_10shot: float | None = None
    coco_t2i: float | None = None
    coco_i2t: float | None = None
    flickr_t2i: float | None = None
    flickr_i2t: float | None = None
    xm3600_t2i: float | None = None
    xm3600_i2t: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One released checkpoint: where it is, what it is, what others call it.

    Attributes:
      name: `{siglip|siglip2}_{size}{patch}_{res|naflex}[_i18n]`.
      file: file name in big_vision's storage.
      params: exact number of parameters.
      vanity: big_vision's own name for it (`models/vit.py`, `two_towers.py`);
        None where it has none.
      hf: transformers repository on the hub.
      open_clip: open_clip model names; the first is the one that matches this
        resolution best. Their hub repositories are `timm/<name>`.
      open_clip_res: pixels that open_clip feeds it, where not the checkpoint's.
      timm: timm image tower, with its tag.
    """

    name: str
    file: str
    config: Siglip
    tokenizer: TokenizerName
    params: int
    vanity: str | None
    hf: str
    open_clip: tuple[str, ...]
    open_clip_res: int | None
    timm: str
    accuracy: Accuracy

    @property
    def version(self) -> int:
        """1 for SigLIP, 2 for SigLIP 2."""
        return 2 if self.name.startswith("siglip2") else 1

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARIES[self.tokenizer]

    @property
    def url(self) -> str:
        """big_vision's own storage, as plain https."""
        folder = "siglip2" if self.version == 2 else "siglip"
        return f"{_STORAGE}/big_vision/{folder}/{self.file}"

    @property
    def hub_npz(self) -> str | None:
        """Hub repository that mirrors the big_vision file (SigLIP 2 only)."""
        return f"{self.hf}-jax" if self.version == 2 else None

    @property
    def aliases(self) -> tuple[str, ...]:
        """Every other name that `find` knows, without duplicates."""
        names = [self.file.removesuffix(".npz"), self.name.replace("g-opt", "gopt")]
        names += [self.vanity] if self.vanity else []
        names += [self.hf, *([self.hub_npz] if self.hub_npz else [])]
        for model in self.open_clip:
            names += [model, f"timm/{model}"]
        names += [self.timm]
        return tuple(name for name in dict.fromkeys(names) if name != self.name)


def _row(
    name: str,
    stem: str,
    variant: str,
    res: int | None,
    tokenizer: TokenizerName,
    params: int,
    hf: str,
    open_clip: str,
    timm: str,
    accuracy: tuple[float | None, ...],
    *,
    vanity: bool = True,
    length: int = 64,
    headless: bool = False,
    open_clip_res: int | None = None,
) -> Checkpoint:
    size_name, patch = variant.split("/")
    size = SIZES[size_name]
    # g-opt is the one released model whose towers differ: it keeps a So400m text tower.
    text_size = SIZES["So400m"] if size_name == "g-opt" else size
    if res is None:
        vision: Vision | NaFlexVision = NaFlexVision(size=size, patch=int(patch))
    else:
        vision = Vision(size=size, patch=int(patch), res=res)
    text = Text(
        size=text_size,
        vocab_size=VOCABULARIES[tokenizer].rows,
        length=length,
        head=None if headless else size.width,
    )
    family = "SigLIP2" if name.startswith("siglip2") else "SigLIP"
    i18n = "-i18n" if name.endswith("_i18n") else ""
    tag = "v2_webli" if family == "SigLIP2" else f"webli{i18n.replace('-', '_')}"
    return Checkpoint(
        name=name,
        file=f"{stem}.npz",
        config=Siglip(vision=vision, text=text),
        tokenizer=tokenizer,
        params=params,
        vanity=f"{family} {variant}{i18n} {res or 'NaFlex'}" if vanity else None,
        hf=f"google/{hf}",
        open_clip=tuple(open_clip.split()),
        open_clip_res=open_clip_res,
        timm=f"{timm}.{tag}",
        accuracy=Accuracy(
            **dict(zip((f.name for f in dataclasses.fields(Accuracy)), accuracy, strict=False))
        ),
    )


_NONE = (None,) * 9
# fmt: off
CHECKPOINTS: tuple[Checkpoint, ...] = (
    _row("siglip_b16_224", "webli_en_b16_224_63724782", "B/16", 224, "c4_en", 203_155_970,
         "siglip-base-patch16-224", "ViT-B-16-SigLIP", "vit_base_patch16_siglip_224",
         (76.2, 69.5, 82.8, 70.7, 69.9, 47.2, 64.5, 77.9, 89.6, 22.4, 29.3)),
    _row("siglip_b16_256", "webli_en_b16_256_60500360", "B/16", 256, "c4_en", 203_202_050,
         "siglip-base-patch16-256", "ViT-B-16-SigLIP-256", "vit_base_patch16_siglip_256",
         (76.7, 70.1, 83.1, 71.3, 70.3, 47.4, 65.1, 78.3, 91.1, 22.5, 29.9)),
    _row("siglip_b16_384", "webli_en_b16_384_68578854", "B/16", 384, "c4_en", 203_447_810,
         "siglip-base-patch16-384", "ViT-B-16-SigLIP-384", "vit_base_patch16_siglip_384",
         (78.6, 72.0, 84.6, 73.8, 72.7, 49.7, 67.5, 80.7, 92.2, 23.3, 30.3)),
    _row("siglip_b16_512", "webli_en_b16_512_68580893", "B/16", 512, "c4_en", 203_791_874,
         "siglip-base-patch16-512", "ViT-B-16-SigLIP-512", "vit_base_patch16_siglip_512",
         (79.2, 72.9, 84.9, 74.8, 73.3, 50.4, 67.6, 81.6, 92.5, 23.5, 30.5)),
    _row("siglip_l16_256", "webli_en_l16_256_60552751", "L/16", 256, "c4_en", 652_150_786,
         "siglip-large-patch16-256", "ViT-L-16-SigLIP-256", "vit_large_patch16_siglip_256",
         (80.5, 74.2, 85.9, 77.9, 76.8, 51.2, 69.6, 81.3, 92.0, 30.9, 40.1)),
    _row("siglip_l16_384", "webli_en_l16_384_63634585", "L/16", 384, "c4_en", 652_478_466,
         "siglip-large-patch16-384", "ViT-L-16-SigLIP-384", "vit_large_patch16_siglip_384",
         (82.1, 75.9, 87.1, 80.9, 78.7, 52.8, 70.5, 82.6, 92.9, 31.4, 39.7)),
    _row("siglip_so400m14_224", "webli_en_so400m_224_57633886", "So400m/14", 224, "c4_en",
         877_360_306, "siglip-so400m-patch14-224", "ViT-SO400M-14-SigLIP",
         "vit_so400m_patch14_siglip_224",
         (82.2, 76.0, 87.1, 80.5, 78.2, 50.8, 69.0, 76.6, 90.7, 16.0, 22.8), length=16),
    _row("siglip_so400m14_384", "webli_en_so400m_384_58765454", "So400m/14", 384, "c4_en",
         877_960_498, "siglip-so400m-patch14-384",
         "ViT-SO400M-14-SigLIP-384 ViT-SO400M-14-SigLIP-378", "vit_so400m_patch14_siglip_384",
         (83.2, 77.1, 87.5, 82.9, 79.4, 52.0, 70.2, 80.5, 93.5, 17.8, 26.6)),
    _row("siglip_b16_256_i18n", "webli_i18n_b16_256_66117334", "B/16", 256, "mc4", 370_626_050,
         "siglip-base-patch16-256-multilingual", "ViT-B-16-SigLIP-i18n-256",
         "vit_base_patch16_siglip_256", (*_NONE, 42.6, 54.1)),
    _row("siglip_so400m16_256_i18n", "webli_i18n_so400m_16_256_78061115", "So400m/16", 256, "mc4",
         1_127_430_706, "siglip-so400m-patch16-256-i18n", "ViT-SO400M-16-SigLIP-i18n-256",
         "vit_so400m_patch16_siglip_256",
         (80.8, 74.1, 86.1, 79.5, 77.1, 49.4, 68.6, 80.0, 92.1, 50.0, 62.8),
         headless=True, vanity=False),
    _row("siglip2_b32_256", "siglip2_b32_256", "B/32", 256, "gemma", 376_856_066,
         "siglip2-base-patch32-256", "ViT-B-32-SigLIP2-256", "vit_base_patch32_siglip_256",
         (74.0, 66.9, 81.4, 66.1, 66.6, 47.2, 63.7, 75.5, 89.3, 38.3, 49.0)),
    _row("siglip2_b16_224", "siglip2_b16_224", "B/16", 224, "gemma", 375_187_970,
         "siglip2-base-patch16-224", "ViT-B-16-SigLIP2", "vit_base_patch16_siglip_224",
         (78.2, 71.4, 84.8, 73.6, 72.1, 52.1, 68.9, 80.7, 93.0, 40.3, 50.7)),
    _row("siglip2_b16_256", "siglip2_b16_256", "B/16", 256, "gemma", 375_234_050,
         "siglip2-base-patch16-256", "ViT-B-16-SigLIP2-256", "vit_base_patch16_siglip_256",
         (79.1, 72.5, 85.4, 74.5, 73.1, 53.2, 69.7, 81.7, 94.4, 40.7, 51.0)),
    _row("siglip2_b16_384", "siglip2_b16_384", "B/16", 384, "gemma", 375_479_810,
         "siglip2-base-patch16-384", "ViT-B-16-SigLIP2-384", "vit_base_patch16_siglip_384",
         (80.6, 73.8, 86.2, 77.1, 74.7, 54.6, 71.4, 83.8, 94.9, 41.2, 51.6)),
    _row("siglip2_b16_512", "siglip2_b16_512", "B/16", 512, "gemma", 375_823_874,
         "siglip2-base-patch16-512", "ViT-B-16-SigLIP2-512", "vit_base_patch16_siglip_512",
         (81.2, 74.5, 86.7, 77.8, 75.2, 55.2, 71.2, 84.5, 95.5, 41.4, 52.0)),
    _row("siglip2_l16_256", "siglip2_l16_256", "L/16", 256, "gemma", 881_526_786,
         "siglip2-large-patch16-256", "ViT-L-16-SigLIP2-256", "vit_large_patch16_siglip_256",
         (82.5, 76.8, 87.3, 83.0, 78.8, 54.7, 71.5, 84.1, 94.5, 46.5, 56.5)),
    _row("siglip2_l16_384", "siglip2_l16_384", "L/16", 384, "gemma", 881_854_466,
         "siglip2-large-patch16-384", "ViT-L-16-SigLIP2-384", "vit_large_patch16_siglip_384",
         (83.1, 77.4, 87.6, 84.4, 79.5, 55.3, 71.4, 85.0, 95.2, 47.1, 56.3)),
    _row("siglip2_l16_512", "siglip2_l16_512", "L/16", 512, "gemma", 882_313_218,
         "siglip2-large-patch16-512", "ViT-L-16-SigLIP2-512", "vit_large_patch16_siglip_512",
         (83.5, 77.8, 87.7, 84.6, 79.6, 55.2, 72.1, 85.3, 95.8, 47.4, 56.7)),
    _row("siglip2_so400m14_224", "siglip2_so400m14_224", "So400m/14", 224, "gemma", 1_135_463_602,
         "siglip2-so400m-patch14-224", "ViT-SO400M-14-SigLIP2", "vit_so400m_patch14_siglip_224",
         (83.2, 77.7, 87.8, 84.6, 79.5, 55.1, 71.5, 84.3, 94.6, 47.9, 57.5)),
    _row("siglip2_so400m14_384", "siglip2_so400m14_384", "So400m/14", 384, "gemma", 1_136_008_498,
         "siglip2-so400m-patch14-384", "ViT-SO400M-14-SigLIP2-378",
         "vit_so400m_patch14_siglip_378",
         (84.1, 78.7, 88.1, 86.0, 80.4, 55.8, 71.7, 85.7, 94.9, 48.4, 57.5), open_clip_res=378),
    _row("siglip2_so400m16_256", "siglip2_so400m16_256", "So400m/16", 256, "gemma", 1_135_670_962,
         "siglip2-so400m-patch16-256", "ViT-SO400M-16-SigLIP2-256",
         "vit_so400m_patch16_siglip_256",
         (83.4, 77.8, 87.7, 84.8, 79.7, 55.4, 71.5, 84.4, 94.2, 48.1, 57.5)),
    _row("siglip2_so400m16_384", "siglip2_so400m16_384", "So400m/16", 384, "gemma", 1_136_039_602,
         "siglip2-so400m-patch16-384", "ViT-SO400M-16-SigLIP2-384",
         "vit_so400m_patch16_siglip_384",
         (84.1, 78.4, 88.1, 85.8, 80.4, 56.0, 71.2, 85.3, 95.9, 48.3, 57.5)),
    _row("siglip2_so400m16_512", "siglip2_so400m16_512", "So400m/16", 512, "gemma", 1_136_555_698,
         "siglip2-so400m-patch16-512", "ViT-SO400M-16-SigLIP2-512",
         "vit_so400m_patch16_siglip_512",
         (84.3, 79.1, 88.1, 86.2, 80.5, 56.0, 71.3, 85.5, 95.4, 48.3, 57.6)),
    _row("siglip2_g-opt16_256", "siglip2_g-opt16_256", "g-opt/16", 256, "gemma", 1_871_393_906,
         "siglip2-giant-opt-patch16-256", "ViT-gopt-16-SigLIP2-256",
         "vit_giantopt_patch16_siglip_256",
         (84.5, 79.2, 88.3, 87.1, 82.1, 55.7, 72.5, 85.3, 95.3, 48.2, 58.2)),
    _row("siglip2_g-opt16_384", "siglip2_g-opt16_384", "g-opt/16", 384, "gemma", 1_871_885_426,
         "siglip2-giant-opt-patch16-384", "ViT-gopt-16-SigLIP2-384",
         "vit_giantopt_patch16_siglip_384",
         (85.0, 79.8, 88.5, 88.0, 82.5, 56.1, 72.8, 86.0, 95.4, 48.6, 57.9)),
    _row("siglip2_b16_naflex", "siglip2_b16_naflex", "B/16", None, "gemma", 375_234_050,
         "siglip2-base-patch16-naflex", "ViT-B-16-SigLIP2-naflex",
         "naflexvit_base_patch16_siglip",
         (78.5, None, None, None, None, 51.1, 67.3)),
    _row("siglip2_so400m16_naflex", "siglip2_so400m16_naflex", "So400m/16", None, "gemma",
         1_135_670_962, "siglip2-so400m-patch16-naflex", "ViT-SO400M-16-SigLIP2-naflex",
         "naflexvit_so400m_patch16_siglip",
         (83.5, None, None, None, None, 55.1, 71.2)),
)
# fmt: on


@functools.cache
def _index() -> dict[str, Checkpoint]:
    return {
        alias.lower(): checkpoint
        for checkpoint in CHECKPOINTS
        for alias in (checkpoint.name, *checkpoint.aliases, checkpoint.file, checkpoint.url)
    }


def find(name: str) -> Checkpoint:
    """The released checkpoint called `name` by anyone.

    Accepts our names, big_vision's vanity names, file names and storage URLs
    (`gs://` or `https://`), hub ids (`google/...`, `timm/...`, with or without
    `hf-hub:`), open_clip and timm model names; case does not matter.

    Raises:
      ValueError: if no checkpoint has that name; the message suggests similar names.

    >>> find("ViT-B-16-SigLIP").name, find("SigLIP2 g-opt/16 256").name
    ('siglip_b16_224', 'siglip2_g-opt16_256')
    >>> find("siglip_b16_225")
    Traceback (most recent call last):
      ...
    ValueError: no released checkpoint is called 'siglip_b16_225'; did you mean siglip_b16_224, ...?
    """
    key = name.strip().lower().removeprefix("hf-hub:").removeprefix("https://huggingface.co/")
    key = key.replace("gs://", f"{_STORAGE}/").removesuffix("/")
    if checkpoint := _index().get(key):
        return checkpoint
    hint = ", ".join(near_names(key))
    hint = f"did you mean {hint}?" if hint else "`siglip-jax list` shows all names"
    raise ValueError(f"no released checkpoint is called {name!r}; {hint}")


def near_names(name: str, count: int = 3) -> list[str]:
    """Names of released checkpoints that begin with `name`; if none does, those most like it.

    Each checkpoint once, in the spelling closest to what was typed.

    >>> near_names("SigLIP 2"), near_names("siglip_b16_225", 1)
    (['siglip2_b32_256', 'siglip2_b16_224', 'siglip2_b16_256'], ['siglip_b16_224'])
    """
    beginning = _letters(name)
    near = [alias for alias in _index() if _letters(alias).startswith(beginning)]
    if len(beginning) < _LEAST or not near:
        near = suggestions(name, _index(), 8)
    offers: dict[str, str] = {}
    for alias in near:
        offers.setdefault(_index()[alias].name, alias)
    spelled = {a.lower(): a for c in CHECKPOINTS for a in (c.name, *c.aliases, c.file, c.url)}
    return [spelled[alias] for alias in list(offers.values())[:count]]


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
