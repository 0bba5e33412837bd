"""What the library that a folder was written for computes with it.

PyTorch and the libraries on it are imported when they are asked for, and never needed
otherwise.
"""

import contextlib
import functools
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.config import Tower
from siglip_jax.converters.json_file import read_settings
from siglip_jax.messages import reason
from siglip_jax.verify.own_outputs import Outputs, TowerInputs

# Format to the modules that are needed to load it, and the distributions they come in.
LIBRARIES = {
    "transformers": {"torch": "torch", "transformers": "transformers"},
    "open_clip": {"torch": "torch", "open_clip": "open_clip_torch"},
    "timm": {"torch": "torch", "timm": "timm"},
}

_BLOCK = re.compile(r"(?:encoder\.layers|blocks)\.(\d+)$")


def require_library(to: str) -> None:
    """Raises a ValueError unless there is a library to compare format `to` with, installed."""
    if to not in LIBRARIES:
        raise ValueError(
            f"no other library reads the format {to}; --compare is for {', '.join(LIBRARIES)}"
        )
    needed = LIBRARIES[to]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"--compare needs {' and '.join(needed[name] for name in missing)}, not installed "
            f"here: pip install {' '.join(needed.values())}"
        )


def library_outputs(
    folder: Path, to: str, tower: Tower | None, inputs: TowerInputs, *, per_layer: bool = False
) -> Outputs:
    """What the library of format `to` computes in float32 with what `convert` wrote.

    Raises:
      ValueError: if it cannot load or run the folder.
    """
    with _said_of(folder, to):
        import torch  # pyright: ignore[reportMissingImports]

        texts = None if inputs.texts is None else torch.from_numpy(inputs.texts).long()
        return run(load(folder, to), to, tower, _pixels(inputs.images, to), texts, per_layer)


@functools.lru_cache(maxsize=1)
def load(folder: Path, to: str) -> Any:
    """The library's model of a folder. The last one is kept: `load.cache_clear()` lets it go."""
    loaders = {"transformers": _transformers, "open_clip": _open_clip, "timm": _timm}
    return loaders[to](folder).float().eval()


@contextlib.contextmanager
def _said_of(folder: Path, to: str) -> Iterator[None]:
    """What fails is an error about the folder, in one line."""
    try:
        with quietly():
            yield
    except Exception as error:  # theirs may be anything
        raise ValueError(
            f"{to} cannot run {folder}, which siglip_jax reads: "
            f"{type(error).__name__}: {reason(error)}"
        ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what the libraries say while they load: none of it is about the comparison."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _transformers(folder: Path) -> Any:
    import transformers  # pyright: ignore[reportMissingImports]

    transformers.utils.logging.disable_progress_bar()
    (kind,) = read_settings(folder / "config.json").get("architectures")
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    if wrong := {key: sorted(map(str, names)) for key, names in info.items() if names}:
        raise ValueError(f"not all weights fit: {wrong}")
    return model


def _open_clip(folder: Path) -> Any:
    import open_clip  # pyright: ignore[reportMissingImports]

    # Where it is the working directory: an image tower may be named relative to that.
    with contextlib.chdir(folder):
        return open_clip.create_model("local-dir:.")


def _timm(folder: Path) -> Any:
    import timm  # pyright: ignore[reportMissingImports]

    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def run(
    model: Any, to: str, tower: Tower | None, pixels: Any, texts: Any, per_layer: bool = False
) -> Outputs:
    """What a model of the library gives for tensors in the form that it takes."""
    import torch  # pyright: ignore[reportMissingImports]

    made = Outputs()
    hooks: list[Any] = []

    def keep(name: str, layer: int) -> Any:
        def hook(module: Any, args: Any, out: Any) -> None:
            block = out[0] if isinstance(out, tuple) else out
            made.blocks[name, layer] = block.numpy(force=True)

        return hook

    for name, module in model.named_modules() if per_layer else ():
        if found := _BLOCK.search(name):
            of_text = "text" in name or tower == "text"
            place = "text" if of_text else "image"
            hooks.append(module.register_forward_hook(keep(place, int(found[1]))))
    with torch.no_grad():
        if to == "transformers":
            if tower is None:
                out = model(input_ids=texts, **pixels)
                made.image, made.text = out.image_embeds.numpy(), out.text_embeds.numpy()
                made.logits = out.logits_per_image.numpy()
            elif tower == "image":
                alone = getattr(model, "vision_model", model) if _classifies(model) else model
                out = alone(**pixels)
                rows = out[0] if out.pooler_output is None else out.pooler_output
                made.image = _unit(rows.numpy())
                if _classifies(model):
                    made.logits = model(**pixels).logits.numpy()
            else:
                made.text = _unit(model(input_ids=texts).pooler_output.numpy())
        elif to == "timm":
            classifier, model.head = model.head, torch.nn.Identity()
            pooled = model(pixels)
            made.image = _unit(pooled.numpy())
            if model.num_classes:
                made.logits = classifier(pooled).numpy()
        else:
            zimg = model.encode_image(pixels, normalize=True)
            ztxt = model.encode_text(texts, normalize=True)
            logits = zimg @ ztxt.T * model.logit_scale.exp() + model.logit_bias
            made.image, made.text, made.logits = zimg.numpy(), ztxt.numpy(), logits.numpy()
    for hook in hooks:
        hook.remove()
    return made


def _classifies(model: Any) -> bool:
    """Whether a model of transformers is a tower with a classifier on it."""
    return type(model).__name__.endswith("ForImageClassification")


def _pixels(images: Any, to: str) -> Any:
    """The images in the form that the library's model takes."""
    import torch  # pyright: ignore[reportMissingImports]

    if images is None:
        return {}
    if not hasattr(images, "patches"):
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return {"pixel_values": pixels} if to == "transformers" else pixels
    patches, used = torch.from_numpy(images.patches), torch.from_numpy(images.type)
    if to == "transformers":
        sides = np.stack([images.yidx.max(1) + 1, images.xidx.max(1) + 1], 1)
        shapes = torch.from_numpy(sides).long()
        return {
            "pixel_values": patches,
            "pixel_attention_mask": used,
            "spatial_shapes": shapes,
        }
    places = np.stack([images.yidx, images.xidx], -1)
    coordinates = torch.from_numpy(places).long()
    return {"patches": patches, "patch_coord": coordinates, "patch_valid": used.bool()}


def _unit(z: np.ndarray) -> np.ndarray:
    """Rows of norm 1; patches (n, patches, d), which have no embedding yet, as they are."""
    if z.ndim == 3:
        return z
    return z / np.linalg.norm(z, axis=1, keepdims=True)
