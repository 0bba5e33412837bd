"""Tiny models with room for real texts, and doctors for them."""

import dataclasses
import functools

import numpy as np
from saved_model import VOCABULARY, with_vocabulary

from siglip_jax.doctor.search import Doctor
from siglip_jax.doctor.settings import apply
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Tokenizer, custom_profile
from siglip_jax.pretrained import save

LENGTH = 48


def roomy(name="loop", pad=1, system="big_vision"):
    """(model, params, profile) of a golden case with a context of 48 tokens."""
    model, params, _ = with_vocabulary(name)
    text = dataclasses.replace(model.config.text, length=LENGTH)
    config = dataclasses.replace(model.config, text=text)
    width = text.size.width
    table = np.random.default_rng(1).normal(size=(1, LENGTH, width), scale=0.3)
    params["txt"]["pos_embedding"] = table.astype(np.float32)
    return SiglipModel(config, model.execution), params, custom_profile(config, pad, system)


def tokenizer(profile):
    return Tokenizer(VOCABULARY, profile.text)


@functools.cache
def doctor(name="loop", **kw):
    """Remembered, with all the embeddings it ever computed."""
    return Doctor(*roomy(name, **kw), tokenizer)


def saved(folder, name="loop", **kw):
    model, params, profile = roomy(name, **kw)
    return save(folder, model, params, profile=profile, vocabulary=VOCABULARY)


def plant(d, tower, setting, seed=0):
    """Embeddings of a pipeline with these wrong settings, with the noise of another float32."""
    z = d.embed(apply(d.right[tower], setting))
    noise = np.random.default_rng(seed).normal(size=z.shape, scale=2e-7)
    return (z + noise).astype(np.float32)
