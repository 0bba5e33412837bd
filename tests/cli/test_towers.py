"""Towers alone, headless, and inside other models, in every command that reads a model."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

import siglip_jax
from siglip_jax.converters import convert, open_checkpoint
from siglip_jax.fetch import BUNDLED
from siglip_jax.preprocessing import custom_profile

PICTURES = Path(siglip_jax.__file__).parent / "emoji" / "pictures"


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    """The bundled model's image tower as one would find it in PaliGemma."""
    folder = tmp_path_factory.mktemp("vlm")
    convert(BUNDLED["siglip_emoji"], folder / "hf", to="transformers", tower="image")
    stored = safetensors.numpy.load_file(folder / "hf" / "model.safetensors")
    stored = {
        name.replace("vision_model.", "vision_tower."): array
        for name, array in stored.items()
        if ".head." not in name
    }
    stored["language_model.lm_head.weight"] = np.ones((4, 4), np.float32)
    safetensors.numpy.save_file(stored, folder / "hf" / "model.safetensors")
    card = json.loads((folder / "hf" / "config.json").read_text())
    card = {"model_type": "paligemma", "vision_config": card | {"vision_use_head": False}}
    (folder / "hf" / "config.json").write_text(json.dumps(card))
    return folder / "hf"


def big_vision_scorer():
    """The bundled model without the preprocessing of its own folder, which a tower has not."""
    model = siglip_jax.load("siglip_emoji")
    return model.scorer(tokenizer=False, profile=custom_profile(model.config, 0))


def error(result):
    code, _, err = result
    assert code == 2, err
    return err[-1].removeprefix("siglip-jax: error: ")


def test_a_headless_tower_in_every_command(cli, vlm, tmp_path):
    code, out, _ = cli("show", vlm, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["pool"] == "none" and facts["ignored"] == []
    assert facts["behind"] == "vision_tower., of 1 other tensors"
    code, out, _ = cli("verify", vlm)
    assert code == 0 and "patches: finite" in out and "WRONG" not in out
    code, out, _ = cli("plan", vlm, "--on", "local", "--batch-size", 8, "--json")
    assert code == 0 and [p["task"] for p in json.loads(out)["programs"]] == ["images"]
    code, out, _ = cli("bench", "--model", vlm, "--batch-size", 8, "--seconds", 0, "--json")
    assert code == 0 and [t["tower"] for t in json.loads(out)["towers"]] == ["images"]
    assert cli("convert", vlm, tmp_path / "own", "--to", "siglip_jax")[0] == 0
    assert cli("diff", vlm, tmp_path / "own")[0] == 0
    code, out, _ = cli("diff", "siglip_emoji", vlm, "--tower", "image", "--json")
    assert code == 1 and all("MAPHead" in name for name in json.loads(out)["only_in_a"])
    assert json.loads(out)["differ"] == 0


def test_patches_of_a_headless_tower(cli, vlm, tmp_path):
    out = tmp_path / "x.npz"
    none = error(cli("embed", PICTURES, "--model", vlm, "--out", out))
    assert none.startswith(f"{vlm} is an image tower without pooling (pool='none')")
    assert none == error(cli("embed", PICTURES, "--model", vlm, "--out", tmp_path / "index"))
    scores = error(cli("score", PICTURES, "--model", vlm, "--labels", "cat"))
    assert scores == (
        f"{vlm} is an image tower alone, without the head that brings images to where texts are; "
        "scores need a text tower too"
    )
    assert cli("embed", PICTURES, "--model", vlm, "--features", "blocks=-2", "--out", out)[0] == 0
    whole = big_vision_scorer()
    with np.load(out) as stored:
        want = whole.features(list(stored["images"]), layer=-2)
        features = stored["features"]
        # In a batch of another size sums run in another order.
        np.testing.assert_allclose(features, want, rtol=0, atol=1e-6 * np.abs(want).max())
    index = tmp_path / "index"
    assert cli("embed", PICTURES, "--model", vlm, "--features", "blocks=-2", "--out", index)[0] == 0
    column = pq.read_table(index / "data").column("features")
    got = np.array(column.to_pylist(), np.float32)
    np.testing.assert_allclose(got, features, rtol=0, atol=1e-6 * np.abs(want).max())
    other = error(cli("embed", PICTURES, "--model", vlm, "--features", "encoded", "--out", index))
    assert "job.layer is -2 there and 'encoded' here" in other
    assert "holds patches (blocks=-2), not embeddings" in error(cli("search", index, "a text"))
    wrong = error(
        cli("embed", PICTURES, "--model", vlm, "--features", "blocks=99", "--out", out, "--force")
    )
    assert wrong.startswith("blocks=99: the image tower has ")


def test_one_tower_of_a_bare_file(cli, tmp_path):
    """A file of both towers, without configuration: one of them, with that of a model like it."""
    convert(BUNDLED["siglip_emoji"], tmp_path / "hf", to="transformers")
    bare = shutil.copyfile(tmp_path / "hf" / "model.safetensors", tmp_path / "bare.safetensors")
    options = ("--architecture", "siglip_emoji", "--tower", "image")
    code, out, _ = cli("show", bare, *options, "--json")
    assert code == 0 and "text_tower" not in json.loads(out)
    assert error(cli("show", bare)).endswith("give --architecture of one like it")
    z = tmp_path / "x.npz"
    assert cli("embed", PICTURES, "--model", bare, *options, "--out", z)[0] == 0
    whole = big_vision_scorer()
    with np.load(z) as stored:
        want = whole.embed_images(list(stored["images"]))
        np.testing.assert_allclose(stored["zimg"], want, rtol=0, atol=1e-6)
    code, out, _ = cli("plan", bare, *options, "--on", "local", "--batch-size", 8, "--json")
    assert code == 0 and [p["task"] for p in json.loads(out)["programs"]] == ["images"]
    code, _, err = cli("convert", bare, tmp_path / "t", "--to", "timm", "--architecture",
                       "siglip_emoji", "--image-tower")  # fmt: skip
    assert code == 0 and err[0] == "siglip-jax: --image-tower is called --tower image now"
    with open_checkpoint(tmp_path / "t") as opened:
        assert dataclasses.asdict(opened.config)["text"] is None
