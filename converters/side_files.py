"""What the files beside a conversion's weights say: configuration, tokenizer, preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.config import Tower
from siglip_jax.errors import ModelError
from siglip_jax.preprocessing.profiles import custom_profile
from siglip_jax.preprocessing.text import Tokenizer

from . import siglip_folder
from .checkpoint import OpenCheckpoint, released_vocabulary
from .formats import FORMATS, format_named
from .target_profile import folder_profile, own_images, text_profile
from .tensors import Output


def side_file_settings(
    opened: OpenCheckpoint,
    to: str,
    tower: Tower | None,
    made: list[Output],
    destination: Path,
    pad: int | None,
    vocabulary: str | Path | None,
    name: str | None,
    exact: bool,
) -> dict[str, Any]:
    """What the files beside the weights need to know."""
    form = format_named(to)
    if destination.suffix != (form.ending or destination.suffix):
        raise ValueError(f"{destination}: a file of format {to} must be named {form.ending}")
    if exact and not form.has_exact:
        which = " and ".join(key for key, other in FORMATS.items() if other.has_exact)
        raise ValueError(f"exact is for {which}: all that {to} holds can be moved")
    row, config, notes = opened.like, opened.config.only(tower), ()
    profile = folder_profile(opened, tower, pad) if to == siglip_folder.FORMAT.name else None
    images = own_images(opened, tower)
    pad = opened.pad if pad is None else pad
    path = Path(vocabulary) if vocabulary is not None else opened.vocabulary
    if not form.vocabulary or config.text is None:
        path = None
    elif path is None:
        notes = ("no vocabulary was found, so that no tokenizer files were written",)
    if pad is None and form.needs_pad(opened.config, tower, path is not None):
        unsaid = "how its texts are padded"
        if tower == "image":
            unsaid = "whether it is a SigLIP or a SigLIP 2, whose images are resized differently"
        raise ModelError(
            f"{opened.path} does not say {unsaid}",
            needs="pad",
            advice="give pad 1 (as SigLIP does) or 0 (as SigLIP 2 does)",
        )
    text, own = None, False
    if path is not None:
        assert pad is not None  # every format that holds a vocabulary needs it with one
        known = released_vocabulary(config)
        text = custom_profile(config, pad, vocabulary=known.name if known else None).text
        Tokenizer(path, text)
        if form.steps is not None:
            text, own = text_profile(opened, form, config, pad, path)
    if form.steps is None and profile is None and pad is not None and opened.text_settings:
        profile = opened.with_text_settings(custom_profile(config, pad))
    chosen = name or opened.given_name or (row.name if row else destination.name)
    notes += form.notes(opened.config, exact, own)
    return {
        "pad": pad,
        "profile": profile,
        "images": images.said if images is not None else None,
        "vocabulary": path,
        "text_profile": text,
        "name": chosen,
        "tokenizer_name": f"timm/{row.open_clip[0]}" if row and not own else chosen,
        "dtype": np.result_type(*(output.header.dtype for output in made)).name,
        "destination": destination,
        "exact": exact,
        "notes": notes,
    }
