"""Preprocessing: images and texts to what a model takes, in a stated way.

Start with `profile_for(checkpoint)`; then `preprocess_image` or `decode_image` and
`naflex_patches` for images, `Tokenizer` for texts. Nothing here imports jax;
`siglip_jax.preprocessing.device_resize` is the one module that does.
"""

from siglip_jax.preprocessing.decode import ImageSource, decode_image, drafted
from siglip_jax.preprocessing.images import preprocess_image, resize_image, to_float
from siglip_jax.preprocessing.naflex import Patches, naflex_patches, target_size
from siglip_jax.preprocessing.profiles import (
    PROFILES,
    ImageProfile,
    Profile,
    TextProfile,
    custom_profile,
    profile_for,
)
from siglip_jax.preprocessing.resize import tf_resize
from siglip_jax.preprocessing.text import Tokenizer, clean_text

__all__ = [
    "PROFILES",
    "ImageProfile",
    "ImageSource",
    "Patches",
    "Profile",
    "TextProfile",
    "Tokenizer",
    "clean_text",
    "custom_profile",
    "decode_image",
    "drafted",
    "naflex_patches",
    "preprocess_image",
    "profile_for",
    "resize_image",
    "target_size",
    "tf_resize",
    "to_float",
]
