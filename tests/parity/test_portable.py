"""An open_clip folder of a stock image tower can be moved, and names no folder of this machine."""

import json
import shutil

import command_line
import numpy as np
import pytest
from paths import FIXTURES
from tiny_checkpoint import SIZE, tensors, written
from torch_libraries import import_libraries

torch, open_clip = import_libraries("open_clip")

from siglip_jax.checkpoints import find  # noqa: E402
from siglip_jax.config import Siglip, Text  # noqa: E402
from siglip_jax.converters import convert  # noqa: E402
from siglip_jax.verify.inputs import TEXTS, pictures  # noqa: E402

cli, surroundings = command_line.cli, command_line.surroundings
pytestmark = [
    pytest.mark.usefixtures("surroundings"),
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of ours with the image tower of B/16 and a small text tower."""
    root = tmp_path_factory.mktemp("stock")
    vision = find("siglip_b16_224").config.vision
    config = Siglip(vision=vision, text=Text(size=SIZE, vocab_size=320, length=16, head=768))
    made = {
        name: value * np.float32(0.05) + (1 if name.endswith("scale") else 0)
        for name, value in tensors(config).items()
    }
    written(root / "x.npz", made)
    kw = {"config": config, "pad": 1, "vocabulary": FIXTURES / "tiny.model"}
    convert(root / "x.npz", root / "own", to="siglip_jax", **kw)
    (root / "x.npz").unlink()
    return root / "own"


def paths_in(folder):
    """Files of a folder in which a path of this machine stands."""
    marks = [str(folder.parent).encode(), b"/tmp/", b"/home/", b"/root/", b"local-dir:/"]
    small = [file for file in folder.rglob("*") if file.suffix != ".safetensors"]
    return [
        file.name for file in small if file.is_file() and any(m in file.read_bytes() for m in marks)
    ]


def live(folder):
    """(image embeddings, text embeddings, logits) through the folder's own preprocessing."""
    from PIL import Image

    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    images = torch.stack([transform(Image.fromarray(image)) for image in pictures().values()])
    with torch.no_grad():
        zimg = model.eval().encode_image(images, normalize=True)
        ztxt = model.encode_text(open_clip.get_tokenizer(name)(list(TEXTS)), normalize=True)
        return zimg.numpy(), ztxt.numpy()


def test_it_moves_and_scores_as_certified(cli, model, tmp_path):
    code, out, _ = cli("convert", model, "oc", "--to", "open_clip", "--compare", "--json")
    made = json.loads(out)
    assert code == 0 and made["comparison"]["agrees"], made["comparison"]
    card = json.loads((tmp_path / "oc" / "open_clip_config.json").read_text())
    name = card["model_cfg"]["vision_cfg"]["timm_model_name"]
    assert name == "vit_base_patch16_siglip_224"
    assert paths_in(tmp_path / "oc") == []
    # What the name costs is measured and said.
    effect = made["written_gelu"]["largest_difference"]
    assert made["written_gelu"]["exact_in"] == ["image"] and 1e-6 < effect["image"] < 0.1
    assert any(f"image embeddings {effect['image']:.1e}" in note for note in made["notes"])
    assert "same scores there" not in made["certifies"] and "exact GELU" in made["certifies"]
    before = live(tmp_path / "oc")
    elsewhere = tmp_path / "some" / "where"
    elsewhere.mkdir(parents=True)
    shutil.copytree(tmp_path / "oc", elsewhere / "moved")
    shutil.rmtree(tmp_path / "oc")
    after = live(elsewhere / "moved")
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_exact_form_says_that_it_cannot_be_moved(cli, model, tmp_path):
    code, out, _ = cli(
        "convert", model, "oc", "--to", "open_clip", "--exact", "--compare", "--json"
    )
    made = json.loads(out)
    assert code == 0 and made["comparison"]["agrees"]
    assert "written_gelu" not in made
    assert any("can be neither moved nor uploaded" in note for note in made["notes"])
    assert paths_in(tmp_path / "oc") == ["open_clip_config.json"]
    shutil.move(tmp_path / "oc", tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"oc.visual"):
        live(tmp_path / "moved")
