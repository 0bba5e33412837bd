"""A checkpoint's facts as plain JSON types."""

import dataclasses
from typing import Any

from siglip_jax.checkpoints import Checkpoint
from siglip_jax.config import NaFlexVision, Siglip


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


def describe_config(config: Siglip) -> dict[str, Any]:
    """The architecture, flat."""
    vision, text = config.vision, config.text
    naflex = isinstance(vision, NaFlexVision)
    return {
        "res": None if naflex else vision.res,
        "patch": vision.patch,
        "grid": vision.posemb_grid if naflex else vision.grid,
        "embedding_dim": config.embed_dim,
        "image_tower": dataclasses.asdict(vision.size),
        "text_tower": dataclasses.asdict(text.size),
        "text_head": text.head,
        "text_length": text.length,
        "vocabulary_rows": text.vocab_size,
    }
