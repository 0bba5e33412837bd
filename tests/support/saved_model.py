"""A tiny model with a vocabulary, as the folder that `siglip_jax.save` writes."""

import dataclasses

import numpy as np
from towers import FIXTURES, case

from siglip_jax.config import Siglip
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Profile, custom_profile
from siglip_jax.pretrained import save

VOCABULARY = FIXTURES / "tiny.model"
_ROWS = 320  # pieces of tiny.model


def with_vocabulary(name="loop"):
    """(model, params, profile) of a golden case whose token embedding fits tiny.model."""
    tiny = case(name)
    table = tiny.params["txt"]["Embed_0"]["embedding"]
    rng = np.random.default_rng(0)
    tiny.params["txt"]["Embed_0"]["embedding"] = rng.normal(size=(_ROWS, table.shape[1])).astype(
        np.float32
    )
    text = dataclasses.replace(tiny.config.text, vocab_size=_ROWS)
    config: Siglip = dataclasses.replace(tiny.config, text=text)
    profile: Profile = custom_profile(config, pad=1)
    return SiglipModel(config, tiny.execution), tiny.params, profile


def saved(folder, name="loop"):
    model, params, profile = with_vocabulary(name)
    return save(folder, model, params, profile=profile, vocabulary=VOCABULARY)
