"""Our own folder: big_vision's tensors as safetensors, and all that scores depend on.

`siglip_jax.json` holds the name, the architecture and the preprocessing profile;
beside it lie `weights.safetensors` (folders written before had a `weights.npz`) and
`tokenizer.model`. It loads fastest: nothing is rearranged or unpacked.
"""

import shutil
from pathlib import Path
from typing import Any

from siglip_jax.config import Siglip, from_dict, to_dict
from siglip_jax.preprocessing.profiles import Profile, custom_profile

from .files import open_file
from .json_file import read_settings, write_json
from .source import Source, Tower, released_vocabulary

FORMAT = "siglip_jax"
CONFIG, WEIGHTS, TOKENIZER = "siglip_jax.json", "weights.safetensors", "tokenizer.model"
TOWERS: tuple[Tower | None, ...] = (None, "image", "text")
SHARD_BYTES = None


def write_files(
    folder: Path,
    config: Siglip,
    tower: Tower | None,
    *,
    name: str,
    pad: int | None = None,
    vocabulary: Path | None = None,
    profile: Profile | None = None,
    **unused: Any,
) -> None:
    """Everything but the weights: `siglip_jax.json` and the vocabulary."""
    if profile is None:
        known = released_vocabulary(config)
        # An image tower alone has no texts to pad.
        pad = 0 if pad is None else pad
        profile = custom_profile(config, pad, vocabulary=known.name if known else None)
    card: dict[str, Any] = {
        "name": name,
        "config": to_dict(config),
        "profile": profile.to_dict(),
        "weights": WEIGHTS,
    }
    if tower is not None:
        card["tower"] = tower
    write_json(folder / CONFIG, card)
    if vocabulary is not None:
        shutil.copyfile(vocabulary, folder / TOKENIZER)


def open_folder(path: Path, *, config: Siglip | None = None, weights: Path | None = None) -> Source:
    """Opens a folder that `siglip_jax.save` or `convert` wrote.

    Raises:
      ValueError: if its card or its weights cannot be read.
    """
    card = read_settings(path / CONFIG)
    for key in ("config", "profile", "weights", "name"):
        if key not in card:
            raise ValueError(f"{card.where}: there is no {key!r}")
    try:
        config = config or from_dict(card.values["config"])
        profile = Profile.from_dict(card.values["profile"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{card.where}: {error}") from error
    card.require("tower", (None, "image", "text"), None, "expected image or text")
    reader = open_file(weights or path / card.values["weights"])
    vocabulary = path / TOKENIZER
    return Source(
        format=FORMAT,
        path=path,
        reader=reader,
        files=(path / CONFIG, Path(reader.path)),
        config=config,
        tower=card.get("tower"),
        dropped=dict.fromkeys(reader.ignored, "not a parameter"),
        vocabulary=vocabulary if vocabulary.is_file() else None,
        pad=profile.text.pad,
        profile=profile,
        name=str(card.values["name"]),
    )
