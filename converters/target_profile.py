"""The preprocessing that goes with a conversion: what its source says, in the target's terms."""

import dataclasses
from pathlib import Path

from siglip_jax.config import Siglip, Tower
from siglip_jax.preprocessing.profiles import Profile, TextProfile, custom_profile

from . import hf_tokenizer
from .checkpoint import OpenCheckpoint
from .folder_images import FolderImages
from .format import Format
from .formats import format_named


def target_profile(
    source: OpenCheckpoint,
    to: str,
    *,
    tower: Tower | None = None,
    pad: int | None = None,
    vocabulary: Path | None = None,
) -> Profile | None:
    """The preprocessing by which what `convert` writes gives the scores that the model has here.

    A model of one's own has its profile; released weights, and others that bring none, have the
    one that is named for the system. None where nothing says how texts are padded.

    Raises:
      ValueError: as `convert`.
    """
    form, images = format_named(to), own_images(source, tower)
    if source.profile is not None and source.checkpoint is None:
        return folder_profile(source, tower, pad)
    pad = source.pad if pad is None else pad
    if pad is None and form.needs_pad(source.config, tower, vocabulary is not None):
        return None
    made = custom_profile(source.config, pad or 0, form.profile)
    if images is not None and images.said is not None:
        made = dataclasses.replace(made, name="folder", image=images.said)
    if vocabulary is None or pad is None or form.steps is None:
        return made
    text, _ = text_profile(source, form, source.config, pad, vocabulary)
    return dataclasses.replace(made, text=text)


def own_images(opened: OpenCheckpoint, tower: Tower | None) -> FolderImages | None:
    """How the source wants images prepared, where that is not as for the released weights."""
    images = opened.own_images if tower != "text" else None
    if images is None:
        return None
    # A model of one's own may have the released settings of one system and goes to another.
    ours = opened.profile is not None and opened.checkpoint is None
    return images if images.own or (ours and images.system != "big_vision") else None


def folder_profile(opened: OpenCheckpoint, tower: Tower | None, pad: int | None) -> Profile | None:
    """The profile of a folder of ours; None where that of the released weights will do."""
    if opened.profile is not None:
        profile = opened.profile
    elif (images := own_images(opened, tower)) is not None and images.said is not None:
        known = opened if pad is None else dataclasses.replace(opened, pad=pad)
        profile = known.profile_named()
    else:
        return None
    if pad is None:
        return profile
    return dataclasses.replace(profile, text=dataclasses.replace(profile.text, pad=pad))


def text_profile(
    opened: OpenCheckpoint,
    form: Format,
    config: Siglip,
    pad: int,
    vocabulary: Path,
) -> tuple[TextProfile, bool]:
    """What the ids of another system's tokenizer have to be, and whether that is the model's own.

    A model of one's own means what its profile says. Released weights, and what is built like
    them, keep the tokenizer of the released repositories, whose ids are those of the profile
    that is named for that system.
    """
    if opened.profile is not None and opened.checkpoint is None:
        return dataclasses.replace(opened.profile.text, pad=pad), True
    settings = opened.text_settings
    released = settings is None or (opened.checkpoint is not None and not settings.own)
    if released and hf_tokenizer.family(vocabulary) == hf_tokenizer.FAMILIES[pad]:
        return custom_profile(config, pad, form.profile).text, False
    return opened.with_text_settings(custom_profile(config, pad)).text, True
