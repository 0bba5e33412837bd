"""load and save: what is found, recognised and refused; nothing half written."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from saved_model import VOCABULARY, saved, with_vocabulary
from tiny_checkpoint import bits, tensors, written

from siglip_jax import checkpoints, load, open_model, save
from siglip_jax.config import Execution, Siglip, Size, Text, Vision
from siglip_jax.converters import big_vision
from siglip_jax.converters.files import open_file
from siglip_jax.converters.siglip_folder import CONFIG as CARD
from siglip_jax.preprocessing import PROFILES, custom_profile, profile_for
from siglip_jax.programs import make_mesh
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.reader import Header
from siglip_jax.weights.save import save_params

SIZE = Size(width=8, depth=1, mlp_dim=16, num_heads=2)


def unreleased(vocab_size=32_000, res=32):
    """A small model that has the c4_en vocabulary's rows and belongs to no row of the table."""
    text = Text(size=SIZE, vocab_size=vocab_size, length=4, head=8)
    return Siglip(vision=Vision(size=SIZE, patch=8, res=res), text=text)


@pytest.fixture
def released(monkeypatch):
    """A tiny architecture in the place of siglip_b16_224's, so that its file is a tiny one."""
    row = dataclasses.replace(checkpoints.find("siglip_b16_224"), config=unreleased())
    rows = (row, *checkpoints.CHECKPOINTS[1:])
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", rows)
    checkpoints._index.cache_clear()
    yield row
    checkpoints._index.cache_clear()


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("siglip_jax.fetch._from_hub", offline)


def offline(*_):
    raise OSError("no hub in tests")


def test_on_a_mesh(tmp_path):
    folder = saved(tmp_path / "m")
    mesh = make_mesh(jax.devices())
    rules = (("txt/head/kernel", ("data", None)), (".*", "fsdp"))
    spread, alone = load(folder, mesh=mesh, rules=rules), load(folder)
    kernel = spread.params["txt"]["head"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec("data", None)
    assert len(spread.params["t"].sharding.device_set) == 8
    assert bits(spread.params) == bits(alone.params)
    image = [np.full((32, 32, 3), 9, np.uint8)]
    np.testing.assert_allclose(
        spread.scorer().embed_images(image), alone.scorer().embed_images(image), rtol=0, atol=1e-6
    )


def test_a_file_is_known_by_its_name(tmp_path, released):
    path = written(tmp_path / released.file, tensors(released.config))
    with open_model(path) as opened:
        assert (opened.name, opened.checkpoint) == ("siglip_b16_224", released)
    assert opened.profile_named("big_vision") == profile_for(released)
    assert bits(load(path).params) == bits(load(tmp_path).params)  # the one npz of a folder


class Headers:
    """An open checkpoint of a released size, whose tensors take no memory."""

    path, subtree, ignored = "renamed.npz", "", ()

    def __init__(self, config):
        shapes = parameter_shapes(config)
        self.shapes = {name: Header(shape, np.dtype("float32")) for name, shape in shapes.items()}

    def close(self):
        pass


@pytest.mark.parametrize("name", ["siglip2_b16_naflex", "siglip_so400m16_256_i18n"])
def test_a_file_is_known_by_its_shapes(tmp_path, monkeypatch, name):
    row = checkpoints.find(name)
    monkeypatch.setattr(big_vision, "open_big_vision", lambda _: Headers(row.config))
    (tmp_path / "renamed.npz").touch()
    opened = open_model(tmp_path / "renamed.npz")
    assert (opened.name, opened.checkpoint, opened.config) == (name, row, row.config)
    assert opened.profile_named("big_vision") == profile_for(row)


def test_an_unreleased_file(tmp_path):
    config = unreleased()
    path = written(tmp_path / "x.npz", tensors(config))
    with pytest.raises(ValueError, match=r"x\.npz: .* no released checkpoint .*; pass res=32"):
        load(path)
    for got in (load(path, res=32), load(path, config=config)):
        assert (got.config, got.name, got.checkpoint) == (config, str(path), None)
        assert got.profile == custom_profile(config, 1, "big_vision", "c4_en")
    assert load(path, res=37).config.vision.res == 37  # the last 5 px are cropped
    with pytest.raises(ValueError, match=r"100 px give 12 patches .* have 4; pass res=32"):
        load(path, res=100)
    assert load(path, config=config, res=64).config == unreleased(res=64)


def test_a_vocabulary_that_nobody_released(tmp_path):
    path = written(tmp_path / "x.npz", tensors(unreleased(vocab_size=50)))
    with pytest.raises(
        ValueError,
        match=r"x\.npz: a token embedding of 50 rows belongs to no released vocabulary, .*"
        r"save the model as a folder with its profile",
    ):
        load(path, res=32)
    model, params, profile = with_vocabulary()
    folder = save(tmp_path / "m", model, params, profile=profile)
    with pytest.raises(ValueError, match="m does not say which vocabulary it needs; name a file"):
        load(folder).tokenizer()
    assert load(folder, vocabulary=VOCABULARY).tokenizer().encode("a cat").shape == (1, 8)


def test_the_vocabulary_beside_the_weights_is_taken_and_checked(tmp_path, released):
    path = written(tmp_path / released.file, tensors(released.config))
    with pytest.raises(ValueError, match=r"cannot find the vocabulary c4_en .* put it at .*home/c"):
        load(path).tokenizer()
    (tmp_path / "spiece.model").write_bytes(VOCABULARY.read_bytes())
    assert load(path).vocabulary == tmp_path / "spiece.model"
    with pytest.raises(ValueError, match=r"spiece\.model: wrong vocabulary: .* needs c4_en"):
        load(path).tokenizer()
    (tmp_path / "c4_en.model").write_bytes(b"")
    assert load(path).vocabulary == tmp_path / "c4_en.model"  # the surer name goes first
    assert load(path, vocabulary="other.model").vocabulary.name == "other.model"


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_by_name(tmp_path, released, name):
    path = written(tmp_path / released.file, tensors(released.config))
    assert load(path, profile=name).profile == profile_for(released, name)
    path = written(tmp_path / "x.npz", tensors(unreleased(res=48)))
    assert load(path, profile=name, res=48).profile == custom_profile(
        unreleased(res=48), 1, name, "c4_en"
    )


def test_a_misspelled_profile(tmp_path, released):
    path = written(tmp_path / released.file, tensors(released.config))
    with pytest.raises(ValueError, match=r"profile must be .*big_vision.*'bigvision'"):
        load(path, profile="bigvision")


def test_another_resolution(tmp_path):
    folder = saved(tmp_path / "m")
    as_is, larger = load(folder), load(folder, res=48)
    assert (larger.config.vision.grid, larger.profile.image.res) == (6, 48)
    assert larger.params["img"]["pos_embedding"].shape == (1, 36, 24)
    assert as_is.params["img"]["pos_embedding"].shape == (1, 16, 24)
    # Corner-aligned zoom: the corners stay.
    np.testing.assert_array_equal(
        larger.params["img"]["pos_embedding"][0, [0, 5, 30, 35]],
        as_is.params["img"]["pos_embedding"][0, [0, 3, 12, 15]],
    )
    assert load(folder, res=32).config == as_is.config
    image = np.zeros((50, 50, 3), np.uint8)
    assert larger.scorer(tokenizer=False).embed_images([image]).shape == (1, 24)


def test_naflex_takes_no_resolution(tmp_path):
    folder = saved(tmp_path / "m", "naflex")
    with pytest.raises(ValueError, match="a NaFlex model has no fixed resolution to change"):
        load(folder, res=64)


def test_a_tensorstore_folder(tmp_path):
    config = unreleased()
    flat = load(written(tmp_path / "x.npz", tensors(config)), config=config)
    (tmp_path / "run").mkdir()
    save_params(tmp_path / "run" / "checkpoint.bv", flat.params, step=7)
    for name in ("checkpoint.bv", "checkpoint.bv-000000007", "checkpoint.bv-LAST"):
        again = load(tmp_path / "run" / name, config=config)
        assert bits(again.params) == bits(flat.params)
    assert bits(load(tmp_path / "run", res=32).params) == bits(flat.params)


def test_a_file_that_holds_another_model(tmp_path, released):
    items = tensors(released.config)
    del items["b"]
    items["img/extra"] = np.ones(3, np.float32)
    items["t"] = np.ones((2, 2), np.float32)
    path = written(tmp_path / released.file, items)
    with pytest.raises(ValueError, match="problem") as error:
        load(path)
    assert str(error.value).splitlines() == [
        f"{path} does not fit the model: 3 problems",
        "  missing: b (1,)",
        "  unexpected: img/extra (3,)",
        "  wrong shape: t is (2, 2), expected (1,)",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("siglip_b16_225", r"no released checkpoint is called 'siglip_b16_225'; did you mean"),
        ("{}/m/weight.safetensors", r"does not exist; did you mean \S*weights\.safetensors\?"),
        ("{}/none/", r"does not exist"),
        ("{}/empty", r"empty is no big_vision checkpoint"),
        ("siglip_b16_224", r"fetch https://\S+/webli_en_b16_224_63724782\.npz and put it at \S+/h"),
    ],
)
def test_there_is_no_such_model(tmp_path, name, message):
    saved(tmp_path / "m")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        load(name.format(tmp_path))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda card: card.pop("profile"), r"siglip_jax\.json: there is no 'profile'"),
        (lambda card: card["profile"]["text"].pop("pad"), r"text\.pad is missing"),
        (lambda card: card["config"]["text"].pop("length"), r"not a model configuration: .*length"),
        (lambda card: card.update(weights="gone.npz"), r"gone\.npz does not exist"),
    ],
)
def test_a_damaged_card(tmp_path, edit, message):
    folder = saved(tmp_path / "m")
    card = json.loads((folder / CARD).read_text())
    edit(card)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_card_that_is_no_json(tmp_path):
    folder = saved(tmp_path / "m")
    (folder / CARD).write_text("{")
    with pytest.raises(ValueError, match=r"siglip_jax\.json: "):
        load(folder)


def test_progress_dtype_and_execution(tmp_path):
    folder = saved(tmp_path / "m")
    seen = []
    model = load(
        folder,
        dtype="bfloat16",
        execution=Execution(dtype="bfloat16", scan_image=True),
        progress=lambda done, total: seen.append((done, total)),
    )
    with open_file(folder / "weights.safetensors") as reader:
        nbytes = sum(header.nbytes for header in reader.shapes.values())
    assert seen[-1] == (nbytes, nbytes) and [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert "encoderblock" in model.params["img"]["Transformer"]
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model.params)} == {"bfloat16"}
