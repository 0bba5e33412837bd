"""What the preprocessing that lies in a folder makes of images and texts, in its own library."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.config import Siglip, Tower
from siglip_jax.verify.live_library import load, quietly
from siglip_jax.verify.live_library import run as run_model
from siglip_jax.verify.own_outputs import Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processed:
    """What a processor gave.

    Attributes:
      name: its class, or classes.
      pixels: what the library's model takes; {} or None without images.
      ids: of texts, (n, length); None without.
      altered: indices of texts that the library rewrites before its tokenizer sees them.
    """

    name: str
    pixels: Any
    ids: Any
    altered: tuple[int, ...] = ()

    def arrays(self, config: Siglip) -> np.ndarray | None:
        """The images as siglip_jax has them: pixels, or the patches of a NaFlex model."""
        pixels = self.pixels
        if isinstance(pixels, Mapping):
            pixels = pixels.get("pixel_values")
        if pixels is None:
            return None
        pixels = pixels.numpy()
        if pixels.ndim == 3:
            return pixels
        pixels = pixels.transpose(0, 2, 3, 1)
        if not config.naflex:
            return pixels
        n, height, width, _ = pixels.shape
        side = config.image_tower.patch
        rows = pixels.reshape(n, height // side, side, width // side, side, 3)
        return rows.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, side * side * 3)


def processed(
    folder: Path,
    to: str,
    config: Siglip,
    images: Sequence[np.ndarray],
    texts: Sequence[str] | None,
) -> Processed:
    """Images and texts through the folder's own processor.

    Args:
      folder: what `convert` wrote.
      to: its format.
      config: the architecture.
      images: uint8 RGB.
      texts: None where the folder has no tokenizer.

    Raises:
      Exception: whatever the library raises.
    """
    from PIL import Image

    pictures = [Image.fromarray(image) for image in images] if config.vision else []
    lines = list(texts) if texts is not None and config.text is not None else None
    with quietly():
        if to == "transformers":
            return _transformers(folder, config, pictures, lines)
        return (_open_clip if to == "open_clip" else _timm)(folder, config, pictures, lines)


def run(folder: Path, to: str, tower: Tower | None, made: Processed) -> Outputs:
    """What the library's model gives for what its processor gave."""
    with quietly():
        return run_model(load(folder, to), to, tower, made.pixels, made.ids)


def _transformers(
    folder: Path, config: Siglip, pictures: list[Any], texts: list[str] | None
) -> Processed:
    import transformers  # pyright: ignore[reportMissingImports]

    asked: dict[str, Any] = {"return_tensors": "pt"}
    names: list[str] = []
    if pictures:
        alone = transformers.AutoImageProcessor.from_pretrained(folder)
        names.append(type(alone).__name__)
        asked["images"] = pictures
        if config.naflex:
            # Siglip2Processor asks for 16 px and 256 patches whatever its folder says.
            asked |= {"patch_size": alone.patch_size, "max_num_patches": alone.max_num_patches}
    if texts is not None:
        length = config.text_tower.length
        asked |= {"text": texts, "padding": "max_length", "truncation": True}
        asked["max_length"] = length
    if texts is None:
        made = alone(**asked) if pictures else {}
    elif pictures:
        processor = transformers.AutoProcessor.from_pretrained(folder)
        names = [type(processor).__name__, type(processor.tokenizer).__name__]
        made = processor(**asked)
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        names = [type(tokenizer).__name__]
        made = tokenizer(**asked)
    keys = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    return Processed(
        name=", ".join(names),
        pixels={key: made[key] for key in keys if key in made},
        ids=made.get("input_ids"),
    )


def _open_clip(
    folder: Path, config: Siglip, pictures: list[Any], texts: list[str] | None
) -> Processed:
    import open_clip  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    settings = load(folder, "open_clip").visual.preprocess_cfg
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**settings), is_train=False
    )
    pixels = torch.stack([transform(picture) for picture in pictures])
    if texts is None:
        return Processed(name="image_transform", pixels=pixels, ids=None)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    altered = tuple(i for i, text in enumerate(texts) if tokenizer.clean_fn(text) != text)
    name = f"image_transform, {type(tokenizer.tokenizer).__name__}"
    return Processed(name=name, pixels=pixels, ids=tokenizer(texts), altered=altered)


def _timm(folder: Path, config: Siglip, pictures: list[Any], texts: list[str] | None) -> Processed:
    import timm  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    settings = timm.data.resolve_model_data_config(load(folder, "timm"))
    transform = timm.data.create_transform(**settings, is_training=False)
    pixels = torch.stack([transform(picture) for picture in pictures])
    return Processed(name="create_transform", pixels=pixels, ids=None)
