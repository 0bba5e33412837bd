"""What siglip_jax computes for the bundled inputs with an open checkpoint of any format.

Imports jax, when it is called.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from siglip_jax.config import NaFlexVision
from siglip_jax.converters import FORMATS, OpenCheckpoint

if TYPE_CHECKING:
    from siglip_jax.preprocessing import Profile


class TowerInputs(NamedTuple):
    """What both systems are given: an array or `Patches`, and token ids; None without a tower."""

    images: Any
    texts: np.ndarray | None
    described: str


@dataclasses.dataclass
class Outputs:
    """Unit-norm rows (of a tower without pooling the patches), logits (of both, or of classes),
    and per (tower, layer) what a block gave."""

    image: np.ndarray | None = None
    text: np.ndarray | None = None
    logits: np.ndarray | None = None
    blocks: dict[tuple[str, int], np.ndarray] = dataclasses.field(default_factory=dict)


def bundled_inputs(
    source: OpenCheckpoint,
    to: str,
    profile: "Profile | None" = None,
    texts: Sequence[str] | None = None,
) -> TowerInputs:
    """The bundled images and texts as the model in `source` takes them.

    Args:
      source: the model.
      to: the system whose preprocessing is followed, where no `profile` is given.
      profile: the preprocessing.
      texts: other texts.

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
    given = profile
    profile = given or custom_profile(config, source.pad or 0, FORMATS[to].profile)
    lines = TEXTS if texts is None else texts
    vision, text = config.vision, config.text
    stated = source.own_images.said if source.own_images is not None else None
    images = profile.image if given is not None or stated is None else stated
    many: list[Any] = []
    for picture in pictures().values() if vision else ():
        if isinstance(vision, NaFlexVision):
            many.append(naflex_patches(picture, images, vision.patch))
        else:
            many.append(to_float(preprocess_image(picture, images), images.value_range))
    if not many:
        ready = None
    elif config.naflex:
        ready = Patches(*map(np.stack, zip(*many, strict=True)))
    else:
        ready = np.stack(many)
    if text is None:
        ids, what = None, ""
    elif source.vocabulary is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that texts are cut is no matter here either
            ids, what = Tokenizer(source.vocabulary, profile.text).encode(lines), "bundled"
    else:
        rng, shape = np.random.default_rng(0), (len(lines), text.length)
        ids, what = rng.integers(0, text.vocab_size, shape).astype(np.int32), "random"
    pictured = f"{len(many)} bundled pictures" if many else ""
    written = f"{len(ids)} {what} texts" if ids is not None else ""
    return TowerInputs(ready, ids, " and ".join(filter(None, (pictured, written))))


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
        made_of = z[0 if name == "image" else 1]
        setattr(made, name, np.asarray(out["img/encoded"] if made_of is None else made_of))
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
