"""`siglip-jax demo`, and the model that is used where none is named."""

import json

import pytest
from PIL import Image

from siglip_jax.fetch import BUNDLED

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")


def test_demo(cli):
    code, out, err = cli("demo")
    assert code == 0 and err == []
    assert "English: the best of" in out and "Spanish: the best of" in out
    assert "siglip-jax score --model ViT-B-16-SigLIP photo.jpg" in out


def test_demo_for_programs(cli):
    code, out, _ = cli("demo", "--json")
    found = json.loads(out)
    assert code == 0
    english = [r for r in found["results"] if r["language"] == "en"]
    combinations = [r for r in english if r["unseen"] == "combinations"]
    assert len(english) == 8 and len(combinations) == 5
    # Labels beside the right one are hard on purpose: the same role in other tones.
    assert sum(r["right"] for r in combinations) >= 3
    assert all(r["right"] == (r["best"] == r["name"]) for r in found["results"])
    assert len(found["labels"]["en"]) == len(found["labels"]["es"]) > 60


def test_score_without_a_model_uses_the_one_in_the_box(cli, tmp_path):
    picture = next((BUNDLED["siglip_emoji"] / "pictures").iterdir())
    Image.open(picture).save(tmp_path / "picture.png")
    code, out, err = cli("score", "picture.png", "--labels", "a dog", "a house", "--json")
    assert code == 0
    assert json.loads(out)["model"] == "siglip_emoji"
    assert len(err) == 1 and "--model ViT-B-16-SigLIP" in err[0]
