"""Fine-tunes of SigLIP that many use: where they are, what they are, and on what terms.

They are not released checkpoints (`siglip_jax.checkpoints`): big_vision has no file of them. Their
files come from the hub, under terms of their own. Sources: the repositories' model cards and
configurations; parameter counts are exact, of the architecture.
"""

import dataclasses
import functools
from typing import Literal

from siglip_jax.checkpoints import TokenizerName, find
from siglip_jax.config import Siglip


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTune:
    """One fine-tune.

    Attributes:
      name: what it is called here.
      hf: repository on the hub.
      base: the released checkpoint that it was trained from, or is of the family of.
      config: its architecture.
      tokenizer: its vocabulary.
      params: exact number of parameters.
      profile: the system whose preprocessing its makers use.
      licence: of the weights.
      gated: whether the hub asks to accept the licence first.
      aliases: other names that it is known by.
    """

    name: str
    hf: str
    base: str
    config: Siglip
    tokenizer: TokenizerName
    params: int
    profile: Literal["big_vision", "transformers", "open_clip"]
    licence: str
    gated: bool = False
    aliases: tuple[str, ...] = ()


def _marqo(name: str, repository: str, base: str, params: int) -> FineTune:
    row = find(base)
    return FineTune(
        name=name,
        hf=f"Marqo/{repository}",
        base=base,
        config=row.config,
        tokenizer=row.tokenizer,
        params=params,
        profile="open_clip",
        licence="Apache-2.0",
        aliases=(repository,),
    )


FINE_TUNES: tuple[FineTune, ...] = (
    FineTune(
        name="medsiglip_448",
        hf="google/medsiglip-448",
        base="siglip_so400m14_384",
        # 448 px are 32 whole patches of 14.
        config=find("siglip_so400m14_384").config.at_resolution(448),
        tokenizer="c4_en",
        params=878_300_338,
        # Its card takes TensorFlow's resize to reproduce published numbers.
        profile="big_vision",
        licence="Health AI Developer Foundations terms of use",
        gated=True,
        aliases=("medsiglip-448", "MedSigLIP"),
    ),
    _marqo("marqo_fashion_siglip", "marqo-fashionSigLIP", "siglip_b16_224", 203_155_970),
    _marqo("marqo_ecommerce_b", "marqo-ecommerce-embeddings-B", "siglip_b16_224", 203_155_970),
    _marqo("marqo_ecommerce_l", "marqo-ecommerce-embeddings-L", "siglip_l16_256", 652_150_786),
)


@functools.cache
def _index() -> dict[str, FineTune]:
    return {
        name.lower(): tune for tune in FINE_TUNES for name in (tune.name, tune.hf, *tune.aliases)
    }


def find_fine_tune(name: str) -> FineTune | None:
    """The fine-tune called `name` by anyone, if there is one; case does not matter.

    >>> find_fine_tune("Marqo/marqo-fashionSigLIP").licence, find_fine_tune("siglip_b16_224")
    ('Apache-2.0', None)
    """
    key = name.strip().lower().removeprefix("hf-hub:").removeprefix("https://huggingface.co/")
    return _index().get(key.removesuffix("/"))
