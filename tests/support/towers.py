"""Tiny two-tower models with big_vision's own outputs, for tests to load."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from paths import FIXTURES

from siglip_jax.config import Execution, NaFlexVision, Siglip, Size, Text, Vision
from siglip_jax.preprocessing import Patches

TOWERS = FIXTURES / "towers"
NAMES = tuple(json.loads((TOWERS / "cases.json").read_text()))


class Case(NamedTuple):
    """Configuration, the layout of the file, weights, inputs and golden outputs."""

    path: Path
    config: Siglip
    execution: Execution
    params: dict[str, Any]
    images: Any
    texts: Any
    golden: dict[str, np.ndarray]


def size(plain: dict[str, Any]) -> Size:
    return Size(**{k: plain[k] for k in ("width", "depth", "mlp_dim", "num_heads")})


def make_config(image, text, patch, res, length, head) -> Siglip:
    if res is None:
        vision = NaFlexVision(size=size(image), patch=patch, posemb_grid=image["nposemb"])
    else:
        vision = Vision(size=size(image), patch=patch, res=res)
    return Siglip(
        vision=vision,
        text=Text(size=size(text), vocab_size=text["vocab_size"], length=length, head=head),
    )


def case(name: str, folder: Path = TOWERS) -> Case:
    """One of the committed cases, or, with `folder`, of the shared golden data."""
    plain = json.loads((folder / "cases.json").read_text())[name]
    image, text = plain["image"], plain["text"]
    if folder == TOWERS:
        config = make_config(**plain)
    else:
        naflex = "image_model" in plain
        patch = plain["res"] if naflex else image["patch_size"][0]
        res = None if naflex else plain["res"]
        config = make_config(image, text, patch, res, plain["text_len"], plain["out_dim"][1])
    with np.load(folder / f"{name}.npz") as weights:
        flat = {key.removeprefix("params/"): value for key, value in weights.items()}
    with np.load(folder / f"{name}.io.npz") as stored:
        golden = dict(stored)
    if config.naflex:
        images = Patches(*(jnp.asarray(golden[k]) for k in ("patches", "type", "yidx", "xidx")))
    else:
        images = jnp.asarray(golden["image"])
    return Case(
        path=folder / f"{name}.npz",
        config=config,
        execution=Execution(
            dtype=image.get("dtype_mm", "float32"),
            scan_image=image.get("scan", False),
            scan_text=text.get("scan", False),
        ),
        params=unflatten_dict(flat, sep="/"),
        images=images,
        texts=jnp.asarray(golden["text"]),
        golden=golden,
    )


# Parts of a model that are models themselves: see `part`.
CASES = ("whole", "image", "text", "gap", "none")


def part(tiny: Case, which: str) -> Case:
    """A case as it is, or one tower of it: the image tower also without its head."""
    if which == "whole":
        return tiny
    tower = "text" if which == "text" else "image"
    prefix = "txt" if tower == "text" else "img"
    config, params = tiny.config.only(tower), {prefix: dict(tiny.params[prefix])}
    if which in ("gap", "none"):
        vision: Any = dataclasses.replace(config.image_tower, pool=which)
        config = dataclasses.replace(config, vision=vision)
        del params["img"]["MAPHead_0"]
    given = {"images": None} if tower == "text" else {"texts": None}
    return tiny._replace(config=config, params=params, **given)
