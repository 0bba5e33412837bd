"""transformers: `SiglipModel` (SigLIP, and SigLIP 2 at fixed resolution) and `Siglip2Model`.

The names are those of transformers 5.23 `models/siglip` and `models/siglip2`.
"""

import dataclasses
from pathlib import Path

import numpy as np

from siglip_jax.classifier import Classifier
from siglip_jax.config import Siglip, Tower
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.reader import Reader

from . import hf_tokenizer
from .checkpoint import (
    OpenCheckpoint,
    present,
    released_vocabulary,
    vocabulary_beside,
    vocabulary_of_rows,
)
from .classifiers import (
    head_names,
    read_head,
    transformers_activation,
    transformers_labels,
)
from .files import find_weights, open_file
from .format import Format, safetensors_in
from .json_file import Settings, read_settings
from .rules import CONV, DENSE, Op, Rule, Step, dense, expand, heads, heads_out, norm
from .safetensors_file import SHARD_BYTES
from .shards import Part
from .towers_inside import config_of_file, only_behind, tower_prefix
from .transformers_card import (
    CONFIG,
    is_inside,
    pad_by_images,
    read_config,
    rows_beside,
    write_files,
)
from .transformers_images import IMAGES, PROCESSOR, read_images
from .translation import APART, closing_on_error, translate

WEIGHTS = "model.safetensors"
_PYTORCH = "pytorch_model.bin"
_HEAD = "text_model.head"
CLASSIFIER = "classifier"

# Buffers that versions before 4.31 saved with the weights.
DROP = {r"(.*\.)?embeddings\.position_ids": "position-id buffer"}

_ALL = ("query", "key", "value")


def _encoder(ours: str, theirs: str) -> list[Rule]:
    block, layer = f"{ours}/encoderblock_{{i}}", f"{theirs}.encoder.layers.{{i}}"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    return [
        *norm(f"{block}/LayerNorm_0", f"{layer}.layer_norm1"),
        *heads(attention, ("query",), f"{layer}.self_attn.q_proj."),
        *heads(attention, ("key",), f"{layer}.self_attn.k_proj."),
        *heads(attention, ("value",), f"{layer}.self_attn.v_proj."),
        *heads_out(attention, f"{layer}.self_attn.out_proj"),
        *norm(f"{block}/LayerNorm_1", f"{layer}.layer_norm2"),
        *dense(f"{block}/MlpBlock_0/Dense_0", f"{layer}.mlp.fc1"),
        *dense(f"{block}/MlpBlock_0/Dense_1", f"{layer}.mlp.fc2"),
    ]


def rules(config: Siglip) -> list[Rule]:
    """The table for both towers of a model like `config`."""
    pool, map_head = "vision_model.head", "img/MAPHead_0"
    stem = DENSE if config.naflex else CONV
    grid = Op("y x d -> (y x) d" if config.naflex else "1 n d -> n d")
    table = [
        *dense("img/embedding", "vision_model.embeddings.patch_embedding", stem),
        Rule(("img/pos_embedding",), "vision_model.embeddings.position_embedding.weight", grid),
        *_encoder("img/Transformer", "vision_model"),
        *norm("img/Transformer/encoder_norm", "vision_model.post_layernorm"),
        Rule((f"{map_head}/probe",), f"{pool}.probe", Op("1 1 d -> 1 1 d")),
        *heads(f"{map_head}/MultiHeadDotProductAttention_0", _ALL, f"{pool}.attention.in_proj_"),
        *heads_out(f"{map_head}/MultiHeadDotProductAttention_0", f"{pool}.attention.out_proj"),
        *norm(f"{map_head}/LayerNorm_0", f"{pool}.layernorm"),
        *dense(f"{map_head}/MlpBlock_0/Dense_0", f"{pool}.mlp.fc1"),
        *dense(f"{map_head}/MlpBlock_0/Dense_1", f"{pool}.mlp.fc2"),
        Rule(
            ("txt/Embed_0/embedding",),
            "text_model.embeddings.token_embedding.weight",
            Op("v d -> v d"),
        ),
        Rule(
            ("txt/pos_embedding",),
            "text_model.embeddings.position_embedding.weight",
            Op("1 n d -> n d"),
        ),
        *_encoder("txt/Encoder_0", "text_model"),
        *norm("txt/Encoder_0/encoder_norm", "text_model.final_layer_norm"),
        *dense("txt/head", _HEAD),
        Rule(("t",), "logit_scale", Op("1 -> 1")),
        Rule(("b",), "logit_bias", Op("1 -> 1")),
    ]
    return table


def steps(config: Siglip, tower: Tower | None = None) -> list[Step]:
    """The steps from big_vision's tensors to those of transformers."""
    part = config.only(tower)
    made = expand(rules(config), parameter_shapes(part))
    if part.text is not None and part.text.head is None:
        # transformers has no text tower without a projection: it gets one that does nothing.
        width = part.text.size.width
        made += [
            Step((), f"{_HEAD}.weight", Op("->"), (), (width, width), "identity"),
            Step((), f"{_HEAD}.bias", Op("->"), (), (width,), "zeros"),
        ]
    return made


def open_folder(
    path: Path,
    *,
    config: Siglip | None = None,
    weights: Path | None = None,
    tower: Tower | None = None,
) -> OpenCheckpoint:
    """Opens a folder of transformers.

    Args:
      path: the folder.
      config: the architecture, in place of `config.json`'s.
      weights: the file of weights, if it is not the one transformers would take.
      tower: the only one to read.

    Raises:
      ValueError: if it holds another architecture or is damaged.
    """
    given = config is not None
    config = (config or read_config(path / CONFIG, tower)).only(tower, str(path))
    # Beside a tower that was asked for, and in another model, there are tensors of no matter.
    apart = tower is not None or (not given and is_inside(path / CONFIG))
    weights = weights or find_weights(path, (WEIGHTS, _PYTORCH))
    stored = open_file(weights, _part(config, weights) if apart else None)
    with closing_on_error(stored):
        head = head_names(stored, CLASSIFIER)
        if head and not any(name.startswith("text_model.") for name in stored.shapes):
            config = config.only("image")
        if given:
            config = config_of_file(config, stored.shapes, r"(.*\.)?head\.probe")
        prefix, drop = "", DROP
        if config.tower is not None:
            prefix = tower_prefix(stored.shapes, config.tower, weights)
            drop = {**DROP, **only_behind(prefix)} if apart else DROP
        if config.text is not None and _head_does_nothing(stored, config, prefix):
            text = dataclasses.replace(config.text, head=None)
            config = dataclasses.replace(config, text=text)
        made = steps(config)
        if config.tower is not None:
            made = [_behind(prefix, step) for step in made]
        reader, dropped = translate(stored, made, drop, apart=head)
        classifier = _classifier(path, stored) if head else None
        for step in made:
            if step.constant and step.theirs in dropped:
                dropped[step.theirs] = "projection that changes nothing"
        dropped |= dict.fromkeys(getattr(stored, "left", ()), f"{APART} ({prefix})")
        if config.tower == "image":
            pad = pad_by_images(path)
            if pad is None and (beside := rows_beside(path / CONFIG)):
                pad = getattr(vocabulary_of_rows(beside), "pad", None)
        else:
            known = released_vocabulary(config)
            pad = known.pad if known else hf_tokenizer.read_pad(path)
        return OpenCheckpoint(
            format=FORMAT.name,
            path=path,
            reader=reader,
            files=(*present(path / CONFIG, path / IMAGES, path / PROCESSOR), *stored.files),
            config=config,
            dropped=dropped,
            vocabulary=vocabulary_beside(path, config),
            pad=pad,
            text_settings=hf_tokenizer.read_text_settings(path, naflex=config.naflex)
            if config.text
            else None,
            images=read_images(path, config, pad) if config.vision else None,
            classifier=classifier,
            reports=reader.reports,
            prefix=prefix if apart else "",
        )


def _classifier(path: Path, stored: Reader) -> Classifier | None:
    """The layer that `SiglipForImageClassification` puts on the mean of the last tokens."""
    card = read_settings(path / CONFIG) if (path / CONFIG).is_file() else Settings({}, str(path))
    classes = stored.shapes[next(iter(head_names(stored, CLASSIFIER)))].shape[0]
    activation = transformers_activation(card, classes)
    return read_head(stored, CLASSIFIER, transformers_labels(card), "mean", activation)


def _part(config: Siglip, weights: Path) -> Part | None:
    """What of a file is wanted of one tower alone."""
    tower = config.tower
    return None if tower is None else lambda names: tower_prefix(names, tower, weights)


def _behind(prefix: str, step: Step) -> Step:
    """The step for a tower that stands behind `prefix`."""
    return dataclasses.replace(step, theirs=prefix + step.theirs.partition(".")[2])


def _head_does_nothing(stored: Reader, config: Siglip, prefix: str) -> bool:
    text = config.text_tower
    head = f"{prefix}head" if config.tower else _HEAD
    width = text.size.width
    names = (f"{head}.weight", f"{head}.bias")
    if any(name not in stored.shapes for name in names) or text.head != width:
        return False
    if [stored.shapes[name].shape for name in names] != [(width, width), (width,)]:
        return False
    weight, bias = (stored.read(name) for name in names)
    return not bias.any() and bool((weight == np.eye(width, dtype=weight.dtype)).all())


def _recognises(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and "model_type" in read_settings(folder / CONFIG)


FORMAT = Format(
    name="transformers",
    config=CONFIG,
    pools=("map", "none"),
    weights=(WEIGHTS, _PYTORCH),
    others=(IMAGES, PROCESSOR, hf_tokenizer.CONFIG),
    tensors=r"(.*\.)?(embeddings\.(patch|token)_embedding|encoder\.layers\.\d+\.self_attn)\.",
    classifier=(CLASSIFIER, "mean"),
    recognises=_recognises,
    open=open_folder,
    write_weights=safetensors_in(WEIGHTS, SHARD_BYTES),
    write_files=write_files,
    steps=steps,
    vocabulary=True,
    # The resampling of a fixed-resolution image processor follows from it too.
    needs_pad=lambda config, tower, vocabulary: tower != "image" or not config.naflex,
    profile="transformers",
)
