"""timm, open_clip and transformers as contestants: bfloat16, compiled, on the same weights."""

import importlib.metadata
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sizes import Case, config_for
from weights import inputs, tensor

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.converters import open_clip as open_clip_table
from siglip_jax.converters import timm as timm_table
from siglip_jax.converters import transformers as transformers_table

DISTRIBUTIONS = {"open_clip": "open_clip_torch"}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(model: torch.nn.Module, steps: Any, dtype: torch.dtype) -> torch.nn.Module:
    """`model` on the device with our weights, tensor by tensor, in their names."""
    model = model.to(device=DEVICE, dtype=dtype)
    state = model.state_dict()
    for step in steps:
        if step.theirs in state:
            arrays = [tensor(*pair) for pair in zip(step.ours, step.shapes, strict=True)]
            array = np.ascontiguousarray(step.forward(arrays, np.dtype(np.float32)))
            state.pop(step.theirs).copy_(torch.from_numpy(array).reshape(step.shape))
    left = [name for name, leaf in state.items() if leaf.is_floating_point() and leaf.numel() > 1]
    if left:
        raise ValueError(f"no weights for {', '.join(sorted(left)[:5])}")
    return model


def timm_model(config: Siglip, compute: torch.dtype) -> torch.nn.Module:
    import timm

    card = timm_table.card(config.vision)
    model = timm.create_model(card["architecture"], num_classes=0, **card["model_args"])
    return load(model, timm_table.steps(config), compute)


def open_clip_model(config: Siglip, compute: torch.dtype) -> torch.nn.Module:
    import json

    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        open_clip_table.write_files(
            path,
            config,
            None,
            destination=path,
            pad=None,
            vocabulary=None,
            tokenizer_name="",
            exact=True,
        )
        cfg = json.loads((path / open_clip_table.CONFIG).read_text())["model_cfg"]
        cfg.pop("custom_text")
        model = open_clip.model.CustomTextCLIP(**cfg)
    return load(model, open_clip_table.steps(config), compute)


def transformers_model(config: Siglip, compute: torch.dtype) -> torch.nn.Module:
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        transformers_table.write_files(
            Path(folder), config, None, pad=1, dtype="float32", vocabulary=None
        )
        card = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModel.from_config(card, attn_implementation="sdpa")
    return load(model, transformers_table.steps(config), compute)


def unit(out: Any) -> torch.Tensor:
    z = (out if torch.is_tensor(out) else out.pooler_output).float()
    return z / z.norm(dim=-1, keepdim=True)


def tower_of(system: str, config: Siglip, tower: str) -> Any:
    """A function of one batch as `batch_of` gives it."""
    compute = torch.bfloat16
    if system == "timm":
        model = timm_model(config, compute).eval()
        return lambda x: unit(model(x))
    if system == "open_clip":
        model = open_clip_model(config, compute).eval()
        encode = model.encode_image if tower == "images" else model.encode_text
        return lambda x: unit(encode(x))
    model = transformers_model(config, compute).eval()
    if tower == "texts":
        return lambda x: unit(model.get_text_features(input_ids=x))
    if isinstance(config.vision, NaFlexVision):
        return lambda x: unit(model.get_image_features(**x))
    return lambda x: unit(model.get_image_features(pixel_values=x))


def batch_of(system: str, config: Siglip, tower: str, batch: int, dtype: Any) -> Any:
    """The inputs of `weights.inputs` on the device, as the system takes them."""
    given = inputs(config, tower, batch)
    if tower == "texts":
        return torch.from_numpy(given).long().to(DEVICE)
    if not isinstance(given, dict):
        if system == "timm":  # its towers are made for whole patches, 378 of 384
            side = config.vision.grid * config.vision.patch
            given = np.ascontiguousarray(given[:, :side, :side])
        pixels = torch.from_numpy(given).to(DEVICE).permute(0, 3, 1, 2)
        return (pixels.float() / 127.5 - 1).to(dtype).contiguous()
    patches = torch.from_numpy(given["patches"]).to(DEVICE, dtype)
    valid = torch.from_numpy(given["type"]).to(DEVICE)
    if system == "transformers":
        sides = np.stack([given[axis].max(1) + 1 for axis in ("yidx", "xidx")], 1)
        shapes = torch.from_numpy(sides).long().to(DEVICE)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": valid,
            "spatial_shapes": shapes,
        }
    coordinates = np.stack([given["yidx"], given["xidx"]], -1)
    return {
        "patches": patches,
        "patch_coord": torch.from_numpy(coordinates).long().to(DEVICE),
        "patch_valid": valid.bool(),
    }


class Theirs:
    """One tower of a library of PyTorch, compiled for each batch."""

    def __init__(self, system: str, case: Case) -> None:
        self.system, self.case, self.config = system, case, config_for(case)
        self.function = tower_of(system, self.config, case.tower)
        self.ready: dict[int, tuple[Any, Any]] = {}

    def prepare(self, batch: int) -> dict[str, Any]:
        given = batch_of(self.system, self.config, self.case.tower, batch, torch.bfloat16)
        # CUDA graphs for one example at a time: the fastest that PyTorch has.
        mode = "reduce-overhead" if batch == 1 and DEVICE == "cuda" else None
        compiled = torch.compile(self.function, dynamic=False, mode=mode)
        self.ready[batch] = compiled, given
        start = time.perf_counter()
        self.run(batch, 3)
        seconds = time.perf_counter() - start
        self.release()
        version = importlib.metadata.version(DISTRIBUTIONS.get(self.system, self.system))
        return {
            "compile_seconds": seconds,
            "temporary": None,
            "torch": torch.__version__,
            "version": version,
        }

    @torch.inference_mode()
    def run(self, batch: int, count: int) -> None:
        compiled, given = self.ready[batch]
        for _ in range(count):
            compiled(given)
        synchronize()

    @torch.inference_mode()
    def embed(self, batch: int) -> np.ndarray:
        compiled, given = self.ready[batch]
        return compiled(given).float().cpu().numpy()

    def release(self) -> None:
        if DEVICE == "cuda":
            torch.cuda.empty_cache()

    def memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
