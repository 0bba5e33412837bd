"""The number of heads: no shape of another system shows it, so a wrong one must be noticed."""

import json

import jax
import numpy as np
import pytest
from tolerances import EMBEDDING
from towers import case

from siglip_jax.cli.main import main
from siglip_jax.converters import convert
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import load


@pytest.mark.parametrize(
    ("part", "tower", "heads"), [("vision_config", "zimg", 6), ("text_config", "ztxt", 4)]
)
def test_other_heads_are_another_model(part, tower, heads, tmp_path, capsys):
    tiny = case("loop")
    folder = tmp_path / "hf"
    convert(tiny.path, folder, to="transformers", config=tiny.config, pad=1)

    def embeddings():
        loaded = load(folder, profile=custom_profile(tiny.config, pad=1))
        model = loaded.model
        zimg, ztxt, _ = jax.jit(model.apply)({"params": loaded.params}, tiny.images, tiny.texts)
        return {"zimg": zimg, "ztxt": ztxt}

    right = embeddings()
    for name in ("zimg", "ztxt"):
        np.testing.assert_allclose(right[name], tiny.golden[name], rtol=0, atol=EMBEDDING)

    # It loads: every shape fits. But the numbers are others, and diff says why.
    card = json.loads((folder / "config.json").read_text())
    card[part]["num_attention_heads"] = heads
    (folder / "config.json").write_text(json.dumps(card))
    wrong = embeddings()
    assert np.abs(wrong[tower] - tiny.golden[tower]).max() > 100 * EMBEDDING
    other = "ztxt" if tower == "zimg" else "zimg"
    np.testing.assert_allclose(wrong[other], tiny.golden[other], rtol=0, atol=EMBEDDING)
    assert main(["diff", str(tiny.path), str(folder)]) == 1
    assert "heads" in capsys.readouterr().out
