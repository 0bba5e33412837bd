"""What siglip_jax computes for the bundled inputs with an open checkpoint of any format.

Imports jax, when it is called.
"""

import dataclasses
import warnings
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.config import NaFlexVision
from siglip_jax.converters import FORMATS, OpenCheckpoint


class TowerInputs(NamedTuple):
    """What both systems are given: an array or `Patches`, and token ids; None without a tower."""

    images: Any
    texts: np.ndarray | None
    described: str


@dataclasses.dataclass
class Outputs:
    """Unit-norm rows, logits (of both, or of classes), per (tower, layer) what a block gave."""

    image: np.ndarray | None = None
    text: np.ndarray | None = None
    logits: np.ndarray | None = None
    blocks: dict[tuple[str, int], np.ndarray] = dataclasses.field(default_factory=dict)


def bundled_inputs(source: OpenCheckpoint, to: str) -> TowerInputs:
    """The bundled images and texts as the model in `source` takes them.

    Without a vocabulary texts are seeded ids: what a text means is of no matter here.
    """
    from siglip_jax.preprocessing import (
        Patches,
        Tokenizer,
        custom_profile,
        naflex_patches,
        preprocess_image,
    )
    from siglip_jax.preprocessing.images import to_float
    from siglip_jax.verify.inputs import TEXTS, pictures

    config = source.config
    profile = custom_profile(config, source.pad or 0, FORMATS[to].profile)
    vision, text = config.vision, config.text
    many: list[Any] = []
    for picture in pictures().values() if vision else ():
        if isinstance(vision, NaFlexVision):
            many.append(naflex_patches(picture, profile.image, vision.patch))
        else:
            many.append(to_float(preprocess_image(picture, profile.image)))
    if not many:
        images = None
    elif config.naflex:
        images = Patches(*map(np.stack, zip(*many, strict=True)))
    else:
        images = np.stack(many)
    if text is None:
        texts, what = None, ""
    elif source.vocabulary is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that texts are cut is no matter here either
            texts, what = Tokenizer(source.vocabulary, profile.text).encode(TEXTS), "bundled"
    else:
        rng, shape = np.random.default_rng(0), (len(TEXTS), text.length)
        texts, what = rng.integers(0, text.vocab_size, shape).astype(np.int32), "random"
    pictured = f"{len(many)} bundled pictures" if many else ""
    written = f"{len(texts)} {what} texts" if texts is not None else ""
    return TowerInputs(images, texts, " and ".join(filter(None, (pictured, written))))


def own_outputs(
    source: OpenCheckpoint,
    inputs: TowerInputs,
    *,
    per_layer: bool = False,
    exact: tuple[str, ...] = (),
) -> Outputs:
    """siglip_jax in float32; `exact` names towers that get the exact GELU."""
    import jax

    from siglip_jax.doctor.wrong_towers import with_gelu
    from siglip_jax.models import SiglipModel, logits
    from siglip_jax.programs.classes import pooled
    from siglip_jax.weights.load import load_params

    config = source.config
    model = SiglipModel(config)
    params = load_params(source.reader, config, dtype="float32")
    made = Outputs()
    for name in config.towers:

        @jax.jit
        def run(params: Any, array: Any, name: str = name) -> Any:
            given = (array, None) if name == "image" else (None, array)
            gelu = "erf" if name in exact else "tanh"
            with jax.default_matmul_precision("highest"), with_gelu(gelu):
                return model.apply({"params": params}, *given, return_blocks=per_layer)

        *z, out = run(params, inputs.images if name == "image" else inputs.texts)
        setattr(made, name, np.asarray(z[0 if name == "image" else 1]))
        head = source.classifier if name == "image" else None
        if head is not None:
            x = np.asarray(pooled(out, inputs.images, head.pooling))
            made.logits = x @ head.kernel.astype(np.float32) + head.bias.astype(np.float32)
        if per_layer:
            blocks = out["img/encoder"] if name == "image" else out
            inside = "block" if name == "image" else "txt/block"
            for key, block in blocks.items():
                if key.startswith(inside):
                    made.blocks[name, int(key.removeprefix(inside))] = np.asarray(block["+mlp"])
    if made.image is not None and made.text is not None:
        made.logits = np.asarray(logits(made.image, made.text, params["t"], params["b"]))
    return made
