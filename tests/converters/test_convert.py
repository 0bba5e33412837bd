"""Conversions: every bit through every format, what is said about them, what is left behind."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from paths import FIXTURES, SHARED
from towers import NAMES, TOWERS, case

from siglip_jax.config import Siglip, to_dict
from siglip_jax.converters import FORMATS, convert, detect, open_checkpoint, plan
from siglip_jax.converters.loop_form import LoopForm
from siglip_jax.weights.big_vision import open_big_vision
from siglip_jax.weights.digest import combined_digest, tensor_digest
from siglip_jax.weights.npz import write_npz
from siglip_jax.weights.tree import flatten

GOLDENS = SHARED / "goldens" / "big_vision"
GOLDEN_NAMES = ("v1_loop", "v1_img_scan", "v2_scan_crop14", "gopt_asym", "i18n_headless", "naflex")
CASES = [(TOWERS, name) for name in NAMES] + [(GOLDENS, name) for name in GOLDEN_NAMES]
TINY = FIXTURES / "tiny.model"


def tensors(path, **kw):
    """Every tensor of a checkpoint in loop form, as (dtype, shape, bytes)."""
    with open_checkpoint(path, **kw) as source:
        reader = LoopForm(source.reader)
        arrays = {name: reader.read(name) for name in reader.shapes}
    return {n: (a.dtype, a.shape, np.ascontiguousarray(a).tobytes()) for n, a in arrays.items()}


def golden(folder, name):
    if not folder.exists():
        pytest.skip("needs ../shared/goldens/big_vision")
    return case(name, folder)


@pytest.mark.parametrize(
    ("folder", "name"), CASES, ids=lambda v: v if isinstance(v, str) else v.parent.name
)
def test_every_bit_through_every_format(tmp_path, folder, name):
    tiny = golden(folder, name)
    first = tensors(tiny.path, config=tiny.config)
    image = {key: value for key, value in first.items() if key.startswith("img/")}
    known = {"config": tiny.config}
    asked = []
    steps = (
        (tiny.path, "hf", "transformers", known),
        (tmp_path / "hf", "oc", "open_clip", {}),
        (tmp_path / "oc", "oc.bv", "tensorstore", {}),
        (tmp_path / "oc.bv", "own", "siglip_jax", known),
        (tmp_path / "own", "whole.npz", "npz", {}),
        (tmp_path / "oc", "timm", "timm", {}),
        (tmp_path / "timm", "image.bv", "tensorstore", {}),
        (tmp_path / "image.bv", "image", "siglip_jax", known),
        (tmp_path / "image", "image.npz", "npz", {}),
    )
    for source, target, form, kw in steps:
        pad = {"pad": 1} if form in ("transformers", "siglip_jax") else {}
        record = convert(source, tmp_path / target, to=form, **kw, **pad)
        asked.append(record.weights_sha256)
        assert record.exact and record.verified
        assert detect(tmp_path / target) == form
    assert tensors(tmp_path / "whole.npz", **known) == first
    assert tensors(tmp_path / "image.npz", **known) == image
    assert len(set(asked[:5])) == 1 and len(set(asked[5:])) == 1
    with open_checkpoint(tmp_path / "own") as own:
        assert own.config == tiny.config
    # big_vision's own reader finds what it had.
    with open_big_vision(tmp_path / "whole.npz") as ours, open_big_vision(tiny.path) as theirs:
        if not any("encoderblock/" in key for key in theirs.shapes):
            assert ours.shapes == theirs.shapes


@pytest.mark.parametrize("form", ["npz", "tensorstore", "siglip_jax"])
def test_stacked_layers_stay_stacked_unless_asked(tmp_path, form):
    tiny = case("scan_crop14")
    for i, kw in enumerate(({}, {"scan_image": False}, {"scan_image": False, "scan_text": False})):
        target = tmp_path / f"x{i}{'.npz' if form == 'npz' else ''}"
        record = convert(tiny.path, target, to=form, config=tiny.config, pad=1, **kw)
        assert record.exact
        with open_checkpoint(target, config=tiny.config) as source:
            names = source.reader.shapes
            assert any("Transformer/encoderblock/" in n for n in names) == (i == 0)
            assert any("Encoder_0/encoderblock/" in n for n in names) == (i < 2)
        again = convert(
            target, tmp_path / f"y{i}.npz", to="npz", config=tiny.config,
            scan_image=True, scan_text=True,
        )  # fmt: skip
        assert again.weights_sha256 == record.weights_sha256
        with open_big_vision(tmp_path / f"y{i}.npz") as ours, open_big_vision(tiny.path) as theirs:
            assert ours.shapes == theirs.shapes
            assert all(ours.read(n).tobytes() == theirs.read(n).tobytes() for n in ours.shapes)


def test_dtypes(tmp_path):
    tiny = case("loop")
    record = convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1,
                     dtype="bfloat16")  # fmt: skip
    assert not record.exact and record.verified
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    first, got = tensors(tiny.path, config=tiny.config), tensors(tmp_path / "hf")
    for name, (_, shape, data) in first.items():
        want = np.frombuffer(data, np.float32).astype(ml_dtypes.bfloat16)
        assert got[name] == (want.dtype, shape, want.tobytes())
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, got"):
        convert(tiny.path, tmp_path / "x", to="npz", config=tiny.config, dtype="int8")


def test_a_single_bfloat16_leaf_stays_one(tmp_path):
    # What big_vision leaves behind when it trains with dtype_mm="bfloat16".
    tiny = case("loop")
    flat = flatten(tiny.params)
    flat["img/pos_embedding"] = flat["img/pos_embedding"].astype(ml_dtypes.bfloat16)
    write_npz(tmp_path / "x.npz", flat.items())
    kw = {"config": tiny.config}
    record = convert(tmp_path / "x.npz", tmp_path / "hf", to="transformers", pad=1, **kw)
    assert record.exact
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "float32"
    convert(tmp_path / "hf", tmp_path / "back.npz", to="npz")
    assert tensors(tmp_path / "back.npz", **kw) == tensors(tmp_path / "x.npz", **kw)


def test_parts_of_different_dtypes_are_joined_without_loss(tmp_path):
    tiny = case("loop")
    flat = flatten(tiny.params)
    name = "img/MAPHead_0/MultiHeadDotProductAttention_0/key/kernel"
    flat[name] = flat[name].astype(ml_dtypes.bfloat16)
    write_npz(tmp_path / "x.npz", flat.items())
    record = convert(
        tmp_path / "x.npz", tmp_path / "hf", to="transformers", pad=1, config=tiny.config
    )
    assert not record.exact
    got = tensors(tmp_path / "hf")[name]
    assert got[0] == np.float32 and got[2] == flat[name].astype(np.float32).tobytes()


def test_what_the_record_says(tmp_path):
    tiny = case("headless")
    seen = []
    record = convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1,
                     progress=lambda *counts: seen.append(counts))  # fmt: skip
    assert record.added == {"text_model.head.weight": "identity", "text_model.head.bias": "zeros"}
    assert record.dropped == {} and record.tower is None
    assert record.parameters == sum(v.size for v in flatten(tiny.params).values())
    assert record.tensors == {
        name: tensor_digest(np.frombuffer(data, dtype).reshape(shape))
        for name, (dtype, shape, data) in tensors(tiny.path, config=tiny.config).items()
    }
    assert record.weights_sha256 == combined_digest(record.tensors)
    assert record.source["files"].keys() == {tiny.path.name}
    files = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert {name.removeprefix("hf/") for name in record.target["files"]} == files
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    plain = json.loads(json.dumps(record.to_dict()))
    assert plain["config"] == json.loads(json.dumps(to_dict(tiny.config)))
    assert plain["weights_sha256"] == record.weights_sha256
    assert "no vocabulary was found" in record.notes[0]
    back = convert(tmp_path / "hf", tmp_path / "oc", to="open_clip")
    assert back.dropped == dict.fromkeys(record.added, "projection that changes nothing")
    image = convert(tmp_path / "oc", tmp_path / "t", to="timm")
    assert image.tower == "image" and set(image.dropped.values()) == {"not in the image tower"}
    assert {"logit_scale", "logit_bias", "text.positional_embedding"} <= image.dropped.keys()


def test_a_projection_that_changes_something_is_kept(tmp_path):
    tiny = case("headless")
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    with open_checkpoint(tmp_path / "hf") as source:
        assert source.config.text.head is None
    weights = tmp_path / "hf" / "model.safetensors"
    data = weights.read_bytes()
    eye = np.eye(16, dtype=np.float32)
    place = data.index(eye.tobytes())
    eye[3, 4] = 1e-7
    weights.write_bytes(data[:place] + eye.tobytes() + data[place + eye.nbytes :])
    with open_checkpoint(tmp_path / "hf") as source:
        assert source.config.text.head == 16
        assert "txt/head/kernel" in source.reader.shapes


def test_position_ids_of_old_files_are_dropped(tmp_path):
    import safetensors.numpy

    tiny = case("loop")
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    file = tmp_path / "hf" / "model.safetensors"
    stored = safetensors.numpy.load_file(file)
    stored["vision_model.embeddings.position_ids"] = np.arange(16)[None]
    stored["text_model.embeddings.position_ids"] = np.arange(8)[None]
    safetensors.numpy.save_file(stored, file)
    record = convert(tmp_path / "hf", tmp_path / "x.npz", to="npz")
    assert record.dropped == {
        "vision_model.embeddings.position_ids": "position-id buffer",
        "text_model.embeddings.position_ids": "position-id buffer",
    }


def test_temperatures_of_either_shape(tmp_path):
    import safetensors.numpy

    tiny = case("loop")
    convert(tiny.path, tmp_path / "oc", to="open_clip", config=tiny.config)
    file = tmp_path / "oc" / "open_clip_model.safetensors"
    stored = safetensors.numpy.load_file(file)
    assert stored["logit_scale"].shape == ()
    stored |= {name: stored[name].reshape(1) for name in ("logit_scale", "logit_bias")}
    safetensors.numpy.save_file(stored, file)
    assert tensors(tmp_path / "oc") == tensors(tiny.path, config=tiny.config)


def test_the_second_text_position_embedding_is_added(tmp_path):
    tiny = case("loop")
    flat = flatten(tiny.params)
    flat["txt/Encoder_0/pos_embedding"] = np.ones_like(flat["txt/pos_embedding"])
    write_npz(tmp_path / "x.npz", flat.items())
    record = convert(tmp_path / "x.npz", tmp_path / "y.npz", to="npz", config=tiny.config)
    assert record.dropped == {"txt/Encoder_0/pos_embedding": "added to txt/pos_embedding"}
    with open_big_vision(tmp_path / "y.npz") as got:
        np.testing.assert_array_equal(
            got.read("txt/pos_embedding"), flat["txt/pos_embedding"] + np.float32(1)
        )


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("form", ["npz", "tensorstore", "transformers", "siglip_jax"])
def test_one_tower(tmp_path, form, tower):
    tiny = case("naflex")
    name = "x.npz" if form == "npz" else "x"
    record = convert(tiny.path, tmp_path / name, to=form, config=tiny.config, tower=tower, pad=0)
    assert record.tower == tower
    prefix = {"image": "img/", "text": "txt/"}[tower]
    first = tensors(tiny.path, config=tiny.config)
    wanted = {key: value for key, value in first.items() if key.startswith(prefix)}
    assert tensors(tmp_path / name) == wanted
    with open_checkpoint(tmp_path / name) as source:
        assert source.tower == tower
        part = {"image": "vision", "text": "text"}[tower]
        assert getattr(source.config, part) == getattr(tiny.config, part)
    with pytest.raises(ValueError, match=f"has only the {tower} tower, not the"):
        other = {"image": "text", "text": "image"}[tower]
        convert(tmp_path / name, tmp_path / "y", to="siglip_jax", tower=other)


def test_towers_that_a_format_has_not(tmp_path):
    tiny = case("loop")
    kw = {"config": tiny.config, "pad": 1}
    for form, tower in (("timm", "text"), ("open_clip", "image"), ("open_clip", "text")):
        with pytest.raises(ValueError, match=f"{form} has no format for the {tower} tower alone"):
            convert(tiny.path, tmp_path / "x", to=form, tower=tower, **kw)
    with pytest.raises(ValueError, match="unknown format 'pt'; expected one of siglip_jax, open_"):
        convert(tiny.path, tmp_path / "x", to="pt", **kw)
    with pytest.raises(ValueError, match="transformers stores each layer by itself"):
        convert(tiny.path, tmp_path / "x", to="transformers", scan_image=True, **kw)
    with pytest.raises(ValueError, match=r"x: a file of format npz must be named \.npz"):
        convert(tiny.path, tmp_path / "x", to="npz", **kw)
    assert list(tmp_path.iterdir()) == []


def test_a_plan(tmp_path):
    tiny = case("scan_crop14")
    rows = {row.target: row for row in plan(tiny.path, "transformers", config=tiny.config)}
    row = rows["vision_model.encoder.layers.1.self_attn.q_proj.weight"]
    stacked = "img/Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"
    assert (row.sources, row.source_shapes) == ((stacked,), ((2, 24, 3, 8),))
    assert (row.shape, row.dtype) == ((24, 24), "float32")
    assert row.operation == "take layer 1, d h k -> (h k) d"
    assert rows["vision_model.head.attention.in_proj_bias"].operation == "h k -> (h k), join 3"
    assert rows["text_model.final_layer_norm.bias"].operation == "copy"
    convert(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    rows = {row.target: row for row in plan(tmp_path / "hf", "open_clip")}
    assert rows["text.transformer.resblocks.0.attn.in_proj_weight"].operation == "join 3"
    kv = rows["visual.trunk.attn_pool.kv.weight"]
    assert kv.operation == "take part 2 and 3 of 3, join 2"
    assert kv.sources == ("vision_model.head.attention.in_proj_weight",)
    rows = {row.target: row for row in plan(tmp_path / "hf", "npz", scan_text=True)}
    row = rows["txt/Encoder_0/encoderblock/MlpBlock_0/Dense_0/kernel"]
    assert row.operation == "o i -> i o, stack 2 layers" and len(row.sources) == 2
    again = plan(tmp_path / "hf", "transformers")
    assert {row.operation for row in again} == {"copy"}
    assert {row.target for row in again} == {row.sources[0] for row in again}


def test_every_format_has_a_name():
    names = ["siglip_jax", "open_clip", "transformers", "timm", "npz", "tensorstore"]
    assert list(FORMATS) == names == [form.name for form in FORMATS.values()]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_or_a_full_disk_leaves_nothing(tmp_path, form, error):
    tiny = case("loop")

    def stop(done, total):
        if done > total / 3:
            raise error("No space left on device")

    before = tiny.path.read_bytes()
    target = tmp_path / f"x{'.npz' if form == 'npz' else ''}"
    with pytest.raises(error):
        convert(tiny.path, target, to=form, config=tiny.config, pad=1, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert tiny.path.read_bytes() == before


@pytest.mark.parametrize("form", FORMATS)
def test_what_exists_is_replaced_only_by_force(tmp_path, form):
    tiny = case("loop")
    kw = {"to": form, "config": tiny.config, "pad": 1}
    target = tmp_path / f"x{'.npz' if form == 'npz' else ''}"
    convert(tiny.path, target, **kw)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"x\S* exists already; choose another name, or force"):
        convert(tiny.path, target, **kw)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tiny.path, target, **kw, force=True, progress=stop)
    first = tensors(target, config=tiny.config)
    other = case("image_scan")
    convert(other.path, target, **kw | {"config": other.config}, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    second = tensors(target, config=other.config)
    assert second.items() <= tensors(other.path, config=other.config).items()
    assert second != first


def test_the_source_is_never_replaced(tmp_path):
    tiny = case("loop")
    convert(tiny.path, tmp_path / "own", to="siglip_jax", config=tiny.config, pad=1)
    for source in (tmp_path / "own", tmp_path / "own" / "weights.safetensors"):
        with pytest.raises(ValueError, match=r"own is what is to be converted; choose another"):
            convert(source, tmp_path / "own", to="transformers", force=True)
    with pytest.raises(ValueError, match=r"the folder \S*none does not exist"):
        convert(tmp_path / "own", tmp_path / "none" / "x", to="timm")


def test_a_vocabulary_travels_and_is_checked(tmp_path):
    tiny = case("loop")
    flat = flatten(tiny.params)
    flat["txt/Embed_0/embedding"] = np.zeros((320, 16), np.float32)
    text = dataclasses.replace(tiny.config.text, vocab_size=320)
    config: Siglip = dataclasses.replace(tiny.config, text=text)
    write_npz(tmp_path / "x.npz", flat.items())
    kw = {"config": config, "vocabulary": TINY}
    with pytest.raises(ValueError, match=r"x\.npz does not say how its texts are padded; give pad"):
        convert(tmp_path / "x.npz", tmp_path / "hf", to="transformers", **kw)
    convert(tmp_path / "x.npz", tmp_path / "hf", to="transformers", pad=1, **kw)
    convert(tmp_path / "hf", tmp_path / "oc", to="open_clip")  # the tokenizer says the padding
    convert(tmp_path / "oc", tmp_path / "own", to="siglip_jax")
    for file in ("hf/spiece.model", "oc/spiece.model", "own/tokenizer.model"):
        assert (tmp_path / file).read_bytes() == TINY.read_bytes()
    with open_checkpoint(tmp_path / "own") as source:
        assert source.pad == 1 and source.profile.text.rows == 320
    (tmp_path / "bad.model").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"bad\.model: not a sentencepiece model"):
        convert(tmp_path / "hf", tmp_path / "y", to="open_clip", vocabulary=tmp_path / "bad.model")
    assert not (tmp_path / "y").exists()
