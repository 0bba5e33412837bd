"""One score of one picture by one system, in a process of its own, as `start.py` starts it.

    PYTHON benchmarks/start_once.py SYSTEM FOLDER PICTURE THREADS

Each system is used as its own documentation does: imported, loaded, its preprocessing and
tokenizer, both towers. Prints the two probabilities, at which moment the clock stops.
"""

import os
import sys
from pathlib import Path

LABELS = ["a photo of a cat", "a photo of a dog"]


def siglip_jax(folder: Path, picture: str) -> list[float]:
    import json

    from siglip_jax.cli import main

    captured: list[str] = []
    write, sys.stdout.write = sys.stdout.write, captured.append
    arguments = ["score", picture, "--model", str(folder / "siglip_jax"), "--json"]
    code = main.main([*arguments, "--labels", *LABELS])
    sys.stdout.write = write
    assert code == 0
    hits = json.loads("".join(captured))["images"][0]["scores"]
    by_label = {hit["label"]: hit["probability"] for hit in hits}
    return [by_label[label] for label in LABELS]


def transformers(folder: Path, picture: str) -> list[float]:
    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folder / "transformers").eval()
    processor = AutoProcessor.from_pretrained(folder / "transformers")
    given = processor(
        text=LABELS, images=Image.open(picture), padding="max_length", return_tensors="pt"
    )
    with torch.inference_mode():
        return torch.sigmoid(model(**given).logits_per_image)[0].tolist()


def open_clip(folder: Path, picture: str) -> list[float]:
    import open_clip
    import torch
    from PIL import Image

    where = f"local-dir:{folder / 'open_clip'}"
    model, preprocess = open_clip.create_model_from_pretrained(where)
    tokens = open_clip.get_tokenizer(where)(LABELS, context_length=model.context_length)
    pixels = preprocess(Image.open(picture)).unsqueeze(0)
    with torch.inference_mode():
        zimg = model.encode_image(pixels, normalize=True)
        ztxt = model.encode_text(tokens, normalize=True)
        logits = zimg @ ztxt.T * model.logit_scale.exp() + model.logit_bias
        return torch.sigmoid(logits)[0].tolist()


def _plain(folder: Path, picture: str):
    """Pixels and ids without a framework, as a deployment of an exported graph has them."""
    import numpy as np
    import sentencepiece
    from PIL import Image

    image = Image.open(picture).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    tokenizer = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "siglip_jax" / "tokenizer.model")
    )
    ids = np.full((len(LABELS), 64), 1, np.int64)
    for row, label in zip(ids, LABELS, strict=True):
        found = [*tokenizer.encode(label)[:63], 1]
        row[: len(found)] = found
    return np, np.ascontiguousarray(pixels), ids


def _sigmoid(np, zimg, ztxt) -> list[float]:
    return (1 / (1 + np.exp(10 - 10 * zimg @ ztxt.T)))[0].tolist()


def onnx_runtime(folder: Path, picture: str) -> list[float]:
    import onnxruntime

    np, pixels, ids = _plain(folder, picture)

    def run(tower, x):
        session = onnxruntime.InferenceSession(
            folder / "onnx" / f"{tower}.onnx", providers=["CPUExecutionProvider"]
        )
        return session.run(None, {"x": x})[0]

    return _sigmoid(np, run("images", pixels), run("texts", ids))


def openvino(folder: Path, picture: str) -> list[float]:
    import openvino

    np, pixels, ids = _plain(folder, picture)
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": str(folder / "openvino_cache")}

    def run(tower, x):
        compiled = core.compile_model(folder / "onnx" / f"{tower}.onnx", "CPU", settings)
        return compiled(x)[0]

    return _sigmoid(np, run("images", pixels), run("texts", ids))


SYSTEMS = {
    "siglip_jax": siglip_jax,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "transformers": transformers,
    "open_clip": open_clip,
}

if __name__ == "__main__":
    _, name, folder, picture, threads = sys.argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    scores = SYSTEMS[name](Path(folder), picture)
    print("scores", *scores, flush=True)
    # Tearing down is not part of starting.
    os._exit(0)
