"""Faults of the roads to a checkpoint that users met, each of which must stay mended.

In the order of the table in the design: one tower alone, a bundled model by its name, two
digests, a repository whose files load as a folder, advice in the wrong language, a name
resolved and a checkpoint opened more than once.
"""

import json
import shutil
from types import SimpleNamespace

import command_line
import huggingface_hub
import numpy as np
import pytest

import siglip_jax
from siglip_jax import converters, fetch, model_files
from siglip_jax.converters import convert, needed_files
from siglip_jax.converters.safetensors_file import SafetensorsReader
from siglip_jax.converters.torch_file import TorchReader
from siglip_jax.fetch import BUNDLED
from siglip_jax.weights.npz import NpzReader
from siglip_jax.weights.tensorstore_folder import FolderReader

# pytest looks for fixtures among the names of a module.
cli, surroundings = command_line.cli, command_line.surroundings
pytestmark = [
    pytest.mark.usefixtures("surroundings"),
    # The bundled model prepares images as no release does, which its conversions say.
    pytest.mark.filterwarnings("ignore:.* is followed, whose settings are not those of the rel"),
]
PICTURES = sorted((BUNDLED["siglip_emoji"] / "pictures").iterdir())[:3]


@pytest.fixture(scope="module")
def image_tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "image"
    convert(BUNDLED["siglip_emoji"], folder, to="timm")
    return folder


@pytest.fixture(scope="module")
def text_tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "text"
    convert(BUNDLED["siglip_emoji"], folder, to="siglip_jax", tower="text")
    return folder


def error(out_of):
    code, out, err = out_of
    assert (code, out) == (2, ""), err
    (line,) = err
    return line.removeprefix("siglip-jax: error: ")


def test_1_a_tower_alone_is_loaded_as_what_it_is(image_tower, text_tower):
    whole = siglip_jax.load("siglip_emoji")
    # timm's files do not say how images are prepared.
    image = siglip_jax.load(image_tower, profile=whole.profile)
    text = siglip_jax.load(text_tower)
    assert (image.config, text.config) == (whole.config.only("image"), whole.config.only("text"))
    assert sorted(image.params) == ["img"] and sorted(text.params) == ["txt"]
    files = list(map(str, PICTURES))
    zimg = image.scorer().embed_images(files)
    np.testing.assert_array_equal(zimg, whole.scorer().embed_images(files))
    ztxt = text.scorer().embed_texts(["cat", "dog"])
    np.testing.assert_array_equal(ztxt, whole.scorer().embed_texts(["cat", "dog"]))
    with pytest.raises(ValueError, match=r"is an image tower alone; texts need a text tower$"):
        image.scorer().embed_texts(["cat"])
    with pytest.raises(ValueError, match=r"is a text tower alone; images need an image tower$"):
        text.scorer().embed_images(files)
    with pytest.raises(ValueError, match=r"alone; scores need a text tower too$"):
        image.scorer().logits(zimg, ztxt)


def test_1_a_tower_alone_in_every_command(cli, image_tower, text_tower, tmp_path):
    assert cli("verify", image_tower)[0] == 0 and cli("verify", text_tower)[0] == 0
    code, out, _ = cli("show", image_tower, "--tree", "--json")
    facts = json.loads(out)
    assert code == 0 and not [name for name in facts if name.startswith(("text", "vocab"))]
    assert all(name.startswith("img/") for name in facts["tree"])
    code, out, _ = cli("plan", image_tower, "--on", "local", "--batch-size", 8, "--json")
    assert code == 0 and [program["task"] for program in json.loads(out)["programs"]] == ["images"]
    code, out, _ = cli("bench", "--model", text_tower, "--batch-size", 8, "--seconds", 0, "--json")
    assert code == 0 and [tower["tower"] for tower in json.loads(out)["towers"]] == ["texts"]
    code, out, _ = cli("diff", "siglip_emoji", image_tower, "--json")
    result = json.loads(out)
    assert (code, result["differ"]) == (1, 0) and result["compared"] == 52
    assert cli("convert", image_tower, tmp_path / "own", "--to", "siglip_jax")[0] == 0
    assert cli("diff", image_tower, tmp_path / "own")[0] == 0


def test_1_a_tower_alone_embeds_and_is_searched(cli, image_tower, text_tower, tmp_path):
    pictures, index = PICTURES[0].parent, tmp_path / "index"
    assert cli("embed", *PICTURES, "--model", image_tower, "--out", "z.npz")[0] == 0
    with np.load("z.npz") as arrays:
        assert arrays["zimg"].shape == (3, 192) and not {"t", "b"} & set(arrays)
    assert cli("embed", pictures, "--model", image_tower, "--out", index)[0] == 0
    code, out, _ = cli("search", index, "--image", PICTURES[0], "--top", 1, "--json")
    (query,) = json.loads(out)["queries"]
    assert code == 0 and query["hits"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert "these queries need a text tower" in error(cli("search", index, "cat"))
    texts = ["--texts", "cat", "--out", tmp_path / "texts"]
    assert cli("embed", *texts, "--model", text_tower)[0] == 0
    assert f"{image_tower} is an image tower alone; texts need a text tower" in error(
        cli("embed", *texts, "--model", image_tower)
    )


def test_1_otherwise_a_command_says_which_tower_it_needs(cli, image_tower, text_tower, tmp_path):
    too = f"{image_tower} is an image tower alone; scores need a text tower too"
    assert error(cli("score", *PICTURES, "--model", image_tower, "--labels", "cat")) == too
    job = ["--labels", "cat", "--out", tmp_path / "job"]
    assert error(cli("score", *PICTURES, "--model", image_tower, *job)) == too
    assert error(cli("plan", image_tower, "--on", "local", "--task", "score")) == too
    line = error(cli("bench", "--model", text_tower, "--tower", "image"))
    assert line == f"{text_tower} is a text tower alone; images need an image tower"
    assert "effects on scores (without --embeddings) need a text" in error(
        cli("doctor", "--model", image_tower)
    )


def test_1_the_doctor_of_a_tower_alone(cli, image_tower):
    from siglip_jax.verify.inputs import pictures

    z = siglip_jax.load(image_tower).scorer().embed_images(list(pictures().values()))
    np.savez("theirs.npz", zimg=z)
    code, out, err = cli("doctor", "--model", image_tower, "--embeddings", "theirs.npz")
    assert (code, err) == (0, []) and out.startswith("image: the embeddings of ")


def test_4_a_bundled_model_is_shown_by_its_name(cli):
    code, out, err = cli("show", "siglip_emoji", "--json")
    assert (code, err) == (0, []) and json.loads(out)["res"] == 32
    assert error(cli("show", "siglip_emojy")) == (
        "no model is called 'siglip_emojy'; did you mean siglip_emoji?"
    )


def test_5_a_job_and_a_conversion_have_one_digest_of_the_weights(cli, tmp_path):
    assert cli("embed", *PICTURES[:1], "--model", "siglip_emoji", "--out", tmp_path / "job")[0] == 0
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    convert(BUNDLED["siglip_emoji"], tmp_path / "x.npz", to="npz")
    certificate = json.loads((tmp_path / "x.npz.conversion.json").read_text())
    digest = certificate["round_trip"]["weights_sha256"]
    assert manifest["space"]["weights"] == f"tensors-sha256:{digest}"


@pytest.mark.parametrize(
    ("to", "written", "name"),
    [
        ("open_clip", "open_clip_model.safetensors", "model.safetensors"),
        ("open_clip", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
        ("timm", "model.safetensors", "model.pth"),
    ],
)
def test_6_what_loads_as_a_folder_loads_as_a_repository(monkeypatch, tmp_path, to, written, name):
    folder = tmp_path / "repository"
    convert(BUNDLED["siglip_emoji"], folder, to=to)
    (folder / written).rename(folder / name)
    expected = siglip_jax.load(folder).params
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]

    def download(repository, revision, allow_patterns):
        for file in allow_patterns:
            (tmp_path / "cache" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, tmp_path / "cache" / file)
        return str(tmp_path / "cache")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr(
        huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=lambda *_, **__: info)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    got = siglip_jax.load("somebody/model").params
    np.testing.assert_array_equal(got["img"]["pos_embedding"], expected["img"]["pos_embedding"])


def test_6_every_file_that_a_format_opens_is_fetched():
    for form in converters.FORMATS.values():
        for pattern in form.weights:
            file = pattern.replace("*", "any")
            there = [file, *([form.config] if form.config else []), "README.md"]
            assert file in needed_files(there)


def test_7_the_command_line_speaks_of_options(cli, image_tower, tmp_path):
    bare = shutil.copyfile(image_tower / "model.safetensors", tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"pass config, .* siglip_jax\.find\(NAME\)\.config$"):
        siglip_jax.load(bare)
    line = error(cli("score", *PICTURES, "--model", bare, "--labels", "cat"))
    assert line.endswith("; give --architecture of one like it")
    line = error(cli("doctor", "--model", bare))
    assert line.endswith("; give --architecture of one like it")
    convert = ["convert", bare, tmp_path / "x", "--to", "siglip_jax"]
    assert error(cli(*convert)).endswith("; give --architecture of one like it")
    code, _, err = cli(*convert, "--architecture", "siglip_emoji")
    assert code == 0, err
    assert error(cli(*convert, "--architecture", "siglip_emoji")).endswith(
        "exists already; choose another name, or --force to replace it"
    )


def test_8_a_name_is_resolved_once_and_a_checkpoint_opened_once(cli, monkeypatch):
    calls = []

    def counted(owner, name):
        original = getattr(owner, name)

        def count(*args, **kw):
            calls.append(name)
            return original(*args, **kw)

        monkeypatch.setattr(owner, name, count)

    counted(model_files, "fetch_model")
    counted(fetch, "is_path")
    # However a file of weights is opened, it is by one of these.
    for reader in (NpzReader, SafetensorsReader, TorchReader, FolderReader):
        counted(reader, "__init__")
    code, _, err = cli("score", *PICTURES, "--model", "siglip_emoji", "--labels", "cat", "dog")
    assert (code, err) == (0, [])
    assert sorted(calls) == ["__init__", "fetch_model", "is_path"]
