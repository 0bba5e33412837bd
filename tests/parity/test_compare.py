"""convert --compare against the libraries themselves: agreement, and a planted difference."""

import json
import shutil

import command_line
import pytest
from saved_model import saved
from torch_libraries import import_libraries

import_libraries("transformers", "timm", "open_clip")

from siglip_jax.converters import convert  # noqa: E402
from siglip_jax.model_files import open_model  # noqa: E402
from siglip_jax.verify.library_comparison import TOLERANCE, compare  # noqa: E402

cli, surroundings = command_line.cli, command_line.surroundings
pytestmark = [
    pytest.mark.usefixtures("surroundings"),
    pytest.mark.filterwarnings("ignore"),  # theirs
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in ("loop", "naflex", "headless"):
        saved(root / name, name)
    return root


@pytest.mark.parametrize("name", ["loop", "naflex", "headless"])
@pytest.mark.parametrize("to", ["transformers", "open_clip", "timm"])
def test_they_agree(cli, models, tmp_path, name, to):
    code, out, err = cli("convert", models / name, "x", "--to", to, "--compare", "--json")
    made = json.loads(out)
    assert (code, err) == (0, [])
    assert json.loads((tmp_path / "x" / "conversion.json").read_text()) == made
    found = made["comparison"]
    assert found["agrees"] and set(found["libraries"]) >= {"torch"}
    texts = "" if to == "timm" else " and 12 bundled texts"
    assert found["inputs"] == f"8 bundled pictures{texts}"
    largest = found["largest_difference"]
    assert set(largest) == ({"image"} if to == "timm" else {"image", "text", "logits"})
    # Two systems are never the same to the last bit: something was compared.
    assert all(0 < value < 1e-5 for value in largest.values())


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("name", ["loop", "naflex"])
def test_a_tower(cli, models, name, tower):
    code, out, _ = cli(
        *("convert", models / name, "x", "--to", "transformers", f"--{tower}-tower"),
        *("--compare", "--json", "--per-layer", "--dtype", "bfloat16"),
    )
    found = json.loads(out)["comparison"]
    assert code == 0 and set(found["largest_difference"]) == {tower}
    assert [(row["tower"], row["layer"]) for row in found["layers"]] == [(tower, 0), (tower, 1)]


def test_per_layer_for_a_person(cli, models):
    code, out, _ = cli(
        "convert", models / "loop", "x", "--to", "open_clip", "--compare", "--per-layer"
    )
    lines = out.splitlines()
    assert code == 0
    assert any(line.startswith("compared     with torch ") for line in lines)
    assert any(line.startswith("difference   at most image embeddings ") for line in lines)
    assert lines[-5].split() == ["TOWER", "BLOCK", "LARGEST", "DIFFERENCE", "LARGEST", "VALUE"]
    assert [line.split()[:2] for line in lines[-4:]] == [
        [tower, layer] for tower in ("image", "text") for layer in "01"
    ]


def test_another_activation_is_found_in_its_tower(models, tmp_path):
    folder = tmp_path / "x"
    convert(models / "loop", folder, to="open_clip")
    file = folder / "open_clip_config.json"
    card = json.loads(file.read_text())
    del card["model_cfg"]["text_cfg"]["act_kwargs"]  # as open_clip has SigLIP 1
    file.write_text(json.dumps(card))
    found = compare(folder, "open_clip", per_layer=True)
    largest = found["largest_difference"]
    assert not found["agrees"]
    assert largest["image"] < TOLERANCE < largest["text"]
    apart = {row["tower"]: row["largest_difference"] for row in found["layers"] if not row["layer"]}
    assert apart["text"] > 10 * apart["image"]


def test_a_folder_that_the_library_cannot_load(cli, models, tmp_path, monkeypatch):
    # What open_clip is told about its image tower is a full path.
    convert(models / "loop", tmp_path / "x", to="open_clip", exact=True)
    shutil.move(tmp_path / "x", tmp_path / "moved")
    with pytest.raises(ValueError, match=r"open_clip cannot run .*moved, which siglip_jax reads: "):
        compare(tmp_path / "moved", "open_clip")

    def fails(*args, **kw):
        raise ValueError("open_clip cannot run it")

    monkeypatch.setattr("siglip_jax.verify.library_comparison.library_outputs", fails)
    code, out, _ = cli("convert", models / "loop", "y", "--to", "open_clip", "--compare")
    assert code == 1 and "compared     open_clip cannot run it" in out
    made = json.loads((tmp_path / "y" / "conversion.json").read_text())
    assert made["comparison"] == {"agrees": False, "error": "open_clip cannot run it"}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """The bundled model as a folder of transformers, and the preprocessing it has here."""
    folder = tmp_path_factory.mktemp("bundled") / "hf"
    with open_model("siglip_emoji") as emoji:
        convert(emoji, folder, to="transformers")
        return folder, emoji.profile


def test_scores_through_the_folders_own_processor(bundled):
    folder, profile = bundled
    found = compare(folder, "transformers", profile=profile)["processor"]
    assert found["class"] == "SiglipProcessor, TokenizersBackend"
    assert found["agrees"] and found["other_ids"] == found["altered"] == []
    assert found["pixels"]["largest_difference"] < 0.01
    assert 0 < found["largest_difference"]["logits"] < 1e-4


@pytest.mark.parametrize("part", ["ids", "pixels", "nothing"])
def test_another_processor_is_seen(bundled, tmp_path, part):
    folder, profile = tmp_path / "hf", bundled[1]
    shutil.copytree(bundled[0], folder)
    name = "preprocessor_config.json" if part == "pixels" else "tokenizer.json"
    card = json.loads((folder / name).read_text())
    if part == "ids":
        steps = card["normalizer"]["normalizers"]
        steps.remove({"type": "Lowercase"})
    elif part == "pixels":
        card["resample"] = 0
    else:
        card["model"]["type"] = "None"
    (folder / name).write_text(json.dumps(card))
    made = compare(folder, "transformers", profile=profile)
    found = made["processor"]
    # The arithmetic is as it was: only the processor tells.
    assert made["agrees"] and not found["agrees"]
    if part == "nothing":
        assert found["error"].startswith("transformers cannot prepare images and texts by ")
        return
    assert bool(found["other_ids"]) == (part == "ids")
    assert (found["pixels"]["largest_difference"] > 1.01) == (part == "pixels")


def test_what_a_certificate_says(cli, tmp_path):
    code, out, _ = cli("convert", "siglip_emoji", "x", "--to", "transformers", "--json")
    made = json.loads(out)
    assert code == 0 and made["certifies"].startswith("tensors only: every bit")
    assert "same scores" not in out
    code, out, _ = cli("convert", "siglip_emoji", "y", "--to", "transformers", "--compare")
    assert code == 0 and "certified    same scores there: 8 images and 29 texts through its" in out
    folder = tmp_path / "y"
    small = [file for file in folder.iterdir() if file.suffix != ".safetensors"]
    assert not [file for file in small if str(tmp_path).encode() in file.read_bytes()]
