"""Folders of classifier fine-tunes, as other systems write them, with random weights."""

import json

import numpy as np
from tiny_checkpoint import CONFIG, tensors

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.converters import convert
from siglip_jax.converters.files import open_file
from siglip_jax.converters.safetensors_file import SafetensorsWriter
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.reader import Header

LABELS = ("cat", "dog", "donut")
TOWER = CONFIG.only("image")
NAFLEX = Siglip(
    vision=NaFlexVision(size=CONFIG.image_tower.size, patch=8, posemb_grid=4), text=None
)


def write_weights(path, items):
    """A safetensors file."""
    headers = {name: Header(a.shape, a.dtype) for name, a in items.items()}
    with SafetensorsWriter(path, headers) as writer:
        for name, array in items.items():
            writer.write(name, array)


def read_weights(path):
    with open_file(path) as reader:
        # Copies: the file is written anew.
        return {name: np.array(reader.read(name)) for name in reader.shapes}


def head(seed=1, classes=3, width=48):
    """(weight, bias) of a dense layer, as PyTorch stores it."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.standard_normal((classes, width)), rng.standard_normal(classes)
    return weight.astype(np.float32), bias.astype(np.float32)


def transformers_folder(folder, config=TOWER, labels=LABELS, **card):
    """What `SiglipForImageClassification.save_pretrained` writes."""
    tower = _tower(folder, config, "transformers")
    weight, bias = head(classes=len(labels))
    write_weights(
        tower / "model.safetensors",
        read_weights(tower / "model.safetensors")
        | {"classifier.weight": weight, "classifier.bias": bias},
    )
    written = json.loads((tower / "config.json").read_text())
    kind = written["model_type"].removesuffix("_vision_model")
    whole = {
        "architectures": [f"{'Siglip2' if config.naflex else 'Siglip'}ForImageClassification"],
        "model_type": kind,
        "vision_config": {k: v for k, v in written.items() if k != "architectures"},
        "text_config": {"model_type": f"{kind}_text_model"},
        "id2label": {str(i): label for i, label in enumerate(labels)},
    }
    (tower / "config.json").write_text(json.dumps(whole | card))
    return tower


def timm_folder(folder, labels=LABELS, config=TOWER):
    """What `timm.models.save_for_hf` writes of a model with `num_classes`."""
    tower = _tower(folder, config, "timm")
    weight, bias = head()
    items = read_weights(tower / "model.safetensors")
    write_weights(tower / "model.safetensors", items | {"head.weight": weight, "head.bias": bias})
    card = json.loads((tower / "config.json").read_text()) | {"num_classes": 3}
    if labels:
        card["label_names"] = list(labels)
    (tower / "config.json").write_text(json.dumps(card))
    return tower


def _tower(folder, config, to):
    folder.mkdir(parents=True, exist_ok=True)
    # Small, so that outputs are numbers of ordinary size.
    small = ((name, array / 10) for name, array in tensors(config).items())
    write_npz(folder / "tower.npz", small)
    path = folder / to
    convert(folder / "tower.npz", path, to=to, config=config, pad=1, tower="image")
    (path / "conversion.json").unlink()
    return path
