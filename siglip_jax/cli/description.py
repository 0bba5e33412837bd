"""A checkpoint's facts as plain JSON types."""

import dataclasses
from typing import Any

from siglip_jax.checkpoints import Checkpoint
from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.fine_tunes import FineTune


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything the table says about a released checkpoint.

    >>> from siglip_jax.checkpoints import find
    >>> facts = describe(find("siglip_so400m14_384"))
    >>> facts["grid"], facts["file"]
    (27, 'webli_en_so400m_384_58765454.npz')
    """
    return {
        "name": checkpoint.name,
        "parameters": checkpoint.params,
        **describe_config(checkpoint.config),
        "tokenizer": checkpoint.tokenizer,
        "file": checkpoint.file,
        "url": checkpoint.url,
        "huggingface": checkpoint.hf,
        "open_clip": list(checkpoint.open_clip),
        "timm": checkpoint.timm,
        "aliases": list(checkpoint.aliases),
        "accuracy": {
            name: value
            for name, value in dataclasses.asdict(checkpoint.accuracy).items()
            if value is not None
        },
    }


def describe_fine_tune(tune: FineTune) -> dict[str, Any]:
    """Everything the table says about a fine-tune.

    >>> from siglip_jax.fine_tunes import find_fine_tune
    >>> describe_fine_tune(find_fine_tune("medsiglip_448"))["res"]
    448
    """
    return {
        "name": tune.name,
        "fine_tune_of": tune.base,
        "licence": tune.licence + (", to be accepted on the hub" if tune.gated else ""),
        "profile": tune.profile,
        "parameters": tune.params,
        **describe_config(tune.config),
        "tokenizer": tune.tokenizer,
        "huggingface": tune.hf,
        "aliases": list(tune.aliases),
    }


def describe_config(config: Siglip) -> dict[str, Any]:
    """The architecture, flat; nothing of a tower that it has not."""
    vision, text = config.vision, config.text
    naflex = isinstance(vision, NaFlexVision)
    facts: dict[str, Any] = {}
    if vision is not None:
        facts["res"] = None if naflex else vision.res
        facts["patch"] = vision.patch
        facts["grid"] = vision.posemb_grid if naflex else vision.grid
        if vision.pool != "map":
            facts["pool"] = vision.pool
    facts["embedding_dim"] = config.embed_dim
    if vision is not None:
        facts["image_tower"] = dataclasses.asdict(vision.size)
    if text is not None:
        facts["text_tower"] = dataclasses.asdict(text.size)
        facts["text_head"] = text.head
        facts["text_length"] = text.length
        facts["vocabulary_rows"] = text.vocab_size
    return facts
