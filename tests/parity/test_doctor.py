"""The doctor on live pipelines: right ones are called right, and their rounding is named."""

import dataclasses
import functools

import numpy as np
import pytest
from doctored import LENGTH, doctor, roomy, saved, tokenizer
from PIL import Image
from saved_model import VOCABULARY
from torch_libraries import import_libraries

torch, transformers = import_libraries("transformers")

from siglip_jax.converters import convert  # noqa: E402
from siglip_jax.doctor.search import Doctor  # noqa: E402
from siglip_jax.preprocessing import Tokenizer, clean_text  # noqa: E402
from siglip_jax.verify import inputs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
PICTURES = [Image.fromarray(picture) for picture in inputs.pictures().values()]


@functools.cache
def folder(parent, name):
    saved(parent / f"{name}-ours", name)
    convert(parent / f"{name}-ours", parent / name, to="transformers")
    return parent / name


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return tmp_path_factory.mktemp("doctor")


def in_precision(model, precision):
    """(the model, the dtype of its inputs)."""
    if precision == "int8":
        linear = {torch.nn.Linear}
        return torch.ao.quantization.quantize_dynamic(model, linear, torch.qint8), torch.float32
    dtype = getattr(torch, precision)
    return model.to(dtype), dtype


def rows(outputs):
    return torch.cat([getattr(z, "pooler_output", z) for z in outputs]).float().numpy()


def images(folder, precision="float32", **options):
    """Embeddings by the model and its own processor, an image a call."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model, dtype = in_precision(model, precision)
    process = transformers.AutoImageProcessor.from_pretrained(folder)
    found = []
    with torch.no_grad():
        for picture in PICTURES:
            ready = process(images=picture, return_tensors="pt", **options)
            ready = {k: v.to(dtype) if v.is_floating_point() else v for k, v in ready.items()}
            found.append(model.get_image_features(**ready))
    return rows(found)


def texts(folder, precision="float32", clean=lambda text: text):
    """The same, a text a call."""
    model, _ = in_precision(transformers.AutoModel.from_pretrained(folder).eval(), precision)
    tokenize = transformers.AutoTokenizer.from_pretrained(folder)
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH}
    with torch.no_grad():
        return rows(
            model.get_text_features(
                input_ids=tokenize([clean(text)], return_tensors="pt", **options)["input_ids"]
            )
            for text in inputs.TEXTS
        )


PRECISIONS = ["float32", "float16", "bfloat16", "int8"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stock_images(parent, precision):
    found = doctor("loop", system="transformers").diagnose(
        "image", images(folder(parent, "loop"), precision)
    )
    assert (found.verdict, found.best.setting) == ("rounded", ())
    # torchvision rounds some grey levels differently.
    assert found.rounding.name == {"float32": "grey levels"}.get(precision, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stock_texts(parent, precision):
    found = doctor("loop", system="transformers").diagnose(
        "text", texts(folder(parent, "loop"), precision)
    )
    if precision == "float32":
        assert (found.verdict, found.rounding) == ("same", None)
    else:
        assert (found.verdict, found.best.setting) == ("rounded", ())
        assert found.rounding.name == precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fault_in_another_precision(parent, precision):
    """transformers' tokenizer deletes punctuation, and lower-cases more than A to Z."""
    found = doctor("loop").diagnose("text", texts(folder(parent, "loop"), precision))
    assert found.verdict == "explained"
    seen = {("punctuation", "delete")}
    if precision != "int8":  # Of one text in twelve, it is less than that.
        seen |= {("lower", "unicode")}
    assert set(found.best.setting) == seen
    assert getattr(found.rounding, "name", "float32") == precision


def naflex(patches):
    model, params, profile = roomy("naflex", system="transformers")
    image = dataclasses.replace(profile.image, max_patches=patches)
    return Doctor(model, params, dataclasses.replace(profile, image=image), tokenizer)


@pytest.mark.parametrize("patches", [784, 1024])
def test_longer_sequences(parent, patches):
    """At 1,024 patches one image has 68 columns, more than big_vision's 64."""
    patch = roomy("naflex")[0].config.vision.patch
    options = {"patch_size": patch, "max_num_patches": patches}
    theirs = images(folder(parent, "naflex"), **options)
    right = naflex(patches).diagnose("image", theirs)
    assert (right.verdict, right.best.setting) == ("rounded", ())
    found = naflex(256).diagnose("image", theirs)
    assert (found.verdict, found.best.setting) == ("explained", (("res", patches),))
    for each in (right, found):
        assert each.rounding.name == "grey levels"


def test_a_row_that_is_another(parent):
    theirs = images(folder(parent, "loop"), "bfloat16")
    theirs[2] = theirs[5]
    found = doctor("loop", system="transformers").diagnose("image", theirs)
    assert (found.verdict, found.misfits, found.best.setting) == ("rows", (2,), ())
    assert found.rounding.name == "bfloat16"


def test_open_clips_whitespace():
    open_clip = pytest.importorskip("open_clip")
    clean = open_clip.tokenizer.get_clean_fn("whitespace")
    model, params, profile = roomy("loop")
    kept = dataclasses.replace(profile.text, lower="none", clean="none")
    ours = dataclasses.replace(kept, clean="whitespace")
    cleaned = [clean(text) for text in inputs.TEXTS]
    assert cleaned == [clean_text(text, ours) for text in inputs.TEXTS]
    assert cleaned != list(inputs.TEXTS)
    ids = Tokenizer(VOCABULARY, kept).encode(cleaned, warn=False)
    found = doctor("loop").diagnose(
        "text", np.asarray(model.apply({"params": params}, None, ids)[1])
    )
    assert found.verdict == "explained"
    assert set(found.best.setting) == {("punctuation", "whitespace"), ("lower", "none")}
