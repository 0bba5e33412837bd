"""PEFT adapters as `PeftModel.save_pretrained` writes them, with random factors."""

import json

import numpy as np
from classifier_folders import write_weights

QUERY = "vision_model.encoder.layers.1.self_attn.q_proj"


def factors(out=48, inside=48, rank=2, seed=3):
    """(A, B) of a LoRA."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rank, inside)), rng.standard_normal((out, rank))
    return a.astype(np.float32), b.astype(np.float32)


def adapter_folder(folder, modules=(QUERY,), *, extra=None, tensors=None, **card):
    """An adapter of rank 2 and alpha 6, which scales by 3, of `modules` of width 48."""
    folder.mkdir(parents=True)
    a, b = factors()
    items = {}
    for module in modules:
        items[f"base_model.model.{module}.lora_A.weight"] = a
        items[f"base_model.model.{module}.lora_B.weight"] = b
    items = (tensors if tensors is not None else items) | (extra or {})
    write_weights(folder / "adapter_model.safetensors", items)
    said = {
        "peft_type": "LORA",
        "base_model_name_or_path": "google/siglip-base-patch16-224",
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["q_proj"],
        "bias": "none",
        "init_lora_weights": True,
        "use_dora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(said | card))
    return folder
