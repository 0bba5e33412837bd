"""Puts a trained model of shapes among the fixtures of the tests, in half precision.

python recipes/shapes/fixture.py runs/shapes/model
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import siglip_jax
from siglip_jax.config import to_dict
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.save import on_host
from siglip_jax.weights.tree import flatten

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "shapes"


def write_model(model: siglip_jax.Pretrained, folder: Path) -> None:
    """Weights, the card that says what they are, the vocabulary."""
    folder.mkdir(exist_ok=True)

    def half(name: str, leaf: Any) -> np.ndarray:
        # exp(t) multiplies every score: it stays in full precision, with the bias.
        array = on_host(leaf)
        return array if name in ("t", "b") else array.astype(np.float16)

    leaves = flatten(model.params)
    write_npz(folder / "shapes.npz", ((name, half(name, leaf)) for name, leaf in leaves.items()))
    card = {
        "name": "shapes",
        "config": to_dict(model.config),
        "profile": model.profile.to_dict(),
        "weights": "shapes.npz",
    }
    (folder / "siglip_jax.json").write_text(json.dumps(card, indent=1) + "\n")
    assert model.vocabulary is not None
    (folder / "tokenizer.model").write_bytes(model.vocabulary.read_bytes())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder that siglip-jax train wrote")
    write_model(siglip_jax.load(parser.parse_args().model), FIXTURE)


if __name__ == "__main__":
    main()
