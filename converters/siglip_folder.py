"""Our own folder: big_vision's tensors as safetensors, and all that scores depend on.

`siglip_jax.json` holds the name, the architecture and the preprocessing profile;
beside it lie `weights.safetensors` (folders written before had a `weights.npz`) and
`tokenizer.model`, or `tokenizer.json` where the model came with that alone. It loads
fastest: nothing is rearranged or unpacked.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np

from siglip_jax.classifier import Classifier, Pooling
from siglip_jax.config import Siglip, Text, Tower, Vision, from_dict, to_dict
from siglip_jax.preprocessing.profiles import Profile, custom_profile
from siglip_jax.preprocessing.tokenizer_json import is_tokenizer_json
from siglip_jax.weights.reader import Reader

from .big_vision import tower_of
from .checkpoint import TOKENIZER_JSON, OpenCheckpoint, present, released_vocabulary
from .classifiers import labels_by_index
from .files import open_file
from .format import Format, safetensors_in
from .json_file import Settings, plain_name, read_settings, write_json
from .translation import closing_on_error

CONFIG, WEIGHTS, TOKENIZER = "siglip_jax.json", "weights.safetensors", "tokenizer.model"
CLASSIFIER = "classifier"
_OLD_WEIGHTS = "weights.npz"


def write_files(
    folder: Path,
    config: Siglip,
    tower: Tower | None,
    *,
    name: str,
    pad: int | None = None,
    vocabulary: Path | None = None,
    profile: Profile | None = None,
    classifier: Classifier | None = None,
    **unused: Any,
) -> None:
    """Everything but the weights: `siglip_jax.json` and the vocabulary."""
    known_pad = pad
    if profile is None:
        known = released_vocabulary(config)
        # An image tower alone has no texts to pad.
        pad = 0 if pad is None else pad
        profile = custom_profile(config, pad, vocabulary=known.name if known else None)
    card: dict[str, Any] = {
        "name": name,
        "config": to_dict(_with_both(config)),
        "profile": profile.to_dict(),
        "weights": WEIGHTS,
    }
    if tower := tower or config.tower:
        card["tower"] = tower
    if classifier is not None:
        card["classifier"] = classifier.describe()
    if tower == "image":
        card["pad"] = known_pad
    write_json(folder / CONFIG, card)
    if vocabulary is not None:
        json = is_tokenizer_json(vocabulary)
        shutil.copyfile(vocabulary, folder / (TOKENIZER_JSON if json else TOKENIZER))


def _with_both(config: Siglip) -> Siglip:
    """With a placeholder for the tower that there is not: readers of this format before a
    configuration could be of one tower want both, and go by `tower`. A tower without its head
    they cannot read in any case."""
    if config.pool not in (None, "map"):
        return config
    if config.vision is None:
        size = dataclasses.replace(config.text_tower.size, width=config.embed_dim, num_heads=1)
        return dataclasses.replace(config, vision=Vision(size=size, patch=1, res=1))
    if config.text is None:
        size = config.vision.size
        text = Text(size=size, vocab_size=1, length=1, head=size.width)
        return dataclasses.replace(config, text=text)
    return config


def open_folder(
    path: Path,
    *,
    config: Siglip | None = None,
    weights: Path | None = None,
    tower: Tower | None = None,
) -> OpenCheckpoint:
    """Opens a folder that `siglip_jax.save` or `convert` wrote, or one tower of it.

    `config` is for folders that do not say theirs, which this one always does.

    Raises:
      ValueError: if its card or its weights cannot be read.
    """
    card = read_settings(path / CONFIG)
    for key in ("config", "profile", "weights", "name"):
        if key not in card:
            raise ValueError(f"{card.where}: there is no {key!r}")
    try:
        config = from_dict(card.values["config"])
        profile = Profile.from_dict(card.values["profile"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{card.where}: {error}") from error
    card.require("tower", (None, "image", "text"), None, "expected image or text")
    # An image tower alone says it apart: its profile has a placeholder where it is not known.
    card.require("pad", (None, 0, 1), None, "expected 0 or 1")
    pad = card.get("pad") if card.get("tower") == "image" else profile.text.pad
    config = config.only(card.get("tower")).only(tower, str(path))
    whole = open_file(weights or path / plain_name(card.values["weights"], card.where))
    dropped = dict.fromkeys(whole.ignored, "not a parameter")
    with closing_on_error(whole):
        classifier = _read_classifier(card.part("classifier"), whole)
        reader, _ = tower_of(whole, tower, dropped)
    vocabulary = present(path / TOKENIZER, path / TOKENIZER_JSON) if config.text else ()
    return OpenCheckpoint(
        format=FORMAT.name,
        path=path,
        reader=reader,
        files=(path / CONFIG, Path(reader.path)),
        config=config,
        dropped=dropped,
        vocabulary=next(iter(vocabulary), None),
        pad=pad,
        profile=profile,
        given_name=str(card.values["name"]),
        classifier=classifier,
    )


def _read_classifier(card: Settings, reader: Reader) -> Classifier | None:
    if not card.values:
        return None
    names = [f"{CLASSIFIER}/{part}" for part in ("kernel", "bias")]
    card.require("pooling", get_args(Pooling), None, "expected map or mean")
    card.require("activation", ("softmax", "sigmoid", None), None, "expected softmax or sigmoid")
    if missing := [name for name in names if name not in reader.shapes]:
        raise ValueError(f"{reader.path} has no {missing[0]}, of which {card.where} speaks")
    kernel, bias = (np.array(reader.read(name)) for name in names)
    # Of the tower there is what is left.
    reader.shapes = {n: header for n, header in reader.shapes.items() if n not in names}
    return Classifier(
        labels=labels_by_index(card, "labels") or (),
        kernel=kernel,
        bias=bias,
        pooling=card.values["pooling"],
        activation=card.values["activation"],
    )


FORMAT = Format(
    name="siglip_jax",
    config=CONFIG,
    weights=(WEIGHTS, _OLD_WEIGHTS),
    recognises=lambda folder: (folder / CONFIG).is_file(),
    open=open_folder,
    # Of either pooling.
    classifier=(CLASSIFIER, None),
    write_weights=safetensors_in(WEIGHTS),
    write_files=write_files,
    vocabulary=True,
    needs_pad=lambda config, tower, vocabulary: tower != "image",
)
