"""The doctor on live pipelines: right ones are called right, and their rounding is named."""

import dataclasses
import functools

import numpy as np
import pytest
from doctored import LENGTH, doctor, roomy, saved, tokenizer
from PIL import Image
from saved_model import VOCABULARY
from torch_libraries import import_libraries
from vocabularies import GEMMA_LIKE, trained

torch, transformers = import_libraries("transformers")

from siglip_jax.converters import convert  # noqa: E402
from siglip_jax.doctor.search import Doctor  # noqa: E402
from siglip_jax.models import SiglipModel  # noqa: E402
from siglip_jax.preprocessing import Tokenizer, clean_text, custom_profile  # noqa: E402
from siglip_jax.pretrained import load, save  # noqa: E402
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


def images(folder, precision="float32", pictures=PICTURES, **options):
    """Embeddings by the model and its own processor, an image a call."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model, dtype = in_precision(model, precision)
    process = transformers.AutoImageProcessor.from_pretrained(folder)
    found = []
    with torch.no_grad():
        for picture in pictures:
            ready = process(images=picture, return_tensors="pt", **options)
            ready = {k: v.to(dtype) if v.is_floating_point() else v for k, v in ready.items()}
            found.append(model.get_image_features(**ready))
    return rows(found)


def texts(folder, tokenize, precision="float32", masked=False):
    """The same, a text a call."""
    model, _ = in_precision(transformers.AutoModel.from_pretrained(folder).eval(), precision)
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH}
    found = []
    with torch.no_grad():
        for text in inputs.TEXTS:
            ready = tokenize([text], return_tensors="pt", return_attention_mask=masked, **options)
            mask = {"attention_mask": ready["attention_mask"]} if masked else {}
            found.append(model.get_text_features(input_ids=ready["input_ids"], **mask))
    return rows(found)


def own(folder):
    """The tokenizer that `convert` wrote: it treats texts as the model that was converted."""
    return transformers.AutoTokenizer.from_pretrained(folder)


def stock():
    """SigLIP's own in transformers: deletes punctuation, and lower-cases more than A to Z."""
    return transformers.SiglipTokenizer(str(VOCABULARY))


PRECISIONS = ["float32", "float16", "bfloat16", "int8"]


def expect_right(found, precision):
    if precision == "float32":
        assert (found.verdict, found.rounding) == ("same", None)
    else:
        assert (found.verdict, found.best.setting) == ("rounded", ())
        assert found.rounding.name == precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stock_images(parent, precision):
    theirs = images(folder(parent, "loop"), precision)
    expect_right(doctor("loop", system="transformers").diagnose("image", theirs), precision)


def resized(how):
    """The bundled images at the model's size, as other systems than torchvision's bytes."""
    res = roomy("loop")[0].config.vision.res
    if how == "Pillow":
        return [picture.resize((res, res), Image.Resampling.BICUBIC) for picture in PICTURES]
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    bicubic = functional.InterpolationMode.BICUBIC
    floats = [functional.pil_to_tensor(picture).float() for picture in PICTURES]
    sized = [functional.resize(each, [res, res], bicubic, antialias=True) for each in floats]
    return [each.round().clamp(0, 255).to(torch.uint8) for each in sized]


@pytest.mark.parametrize("how", ["Pillow", "torchvision on a GPU"])
def test_another_systems_rounding_of_resized_images(parent, how):
    """Some grey levels are one apart from those of torchvision's kernel for bytes."""
    pictures = resized(how)
    theirs = images(folder(parent, "loop"), pictures=pictures, do_resize=False)
    found = doctor("loop", system="transformers").diagnose("image", theirs)
    assert (found.verdict, found.best.setting) == ("rounded", ())
    assert found.rounding.name == "grey levels"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("system", ["big_vision", "transformers"])
def test_right_texts(parent, system, precision):
    path = folder(parent, "loop")
    theirs = texts(path, own(path) if system == "big_vision" else stock(), precision)
    expect_right(doctor("loop", system=system).diagnose("text", theirs), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fault_in_another_precision(parent, precision):
    found = doctor("loop").diagnose("text", texts(folder(parent, "loop"), stock(), precision))
    assert found.verdict == "explained"
    seen = {("punctuation", "delete")}
    if precision != "int8":  # Of one text in twelve, it is less than that.
        seen |= {("lower", "unicode")}
    assert set(found.best.setting) == seen
    assert getattr(found.rounding, "name", "float32") == precision


@pytest.fixture(scope="module")
def naflex_texts(parent):
    """A folder as transformers saves a NaFlex model, and its tokenizer, which is SigLIP 2's."""
    model, params, profile = roomy("naflex", pad=0)
    vocabulary = trained(parent / "gemma.model", **GEMMA_LIKE)
    text = dataclasses.replace(model.config.text, vocab_size=400)
    table = np.random.default_rng(2).normal(size=(400, text.size.width))
    params["txt"]["Embed_0"]["embedding"] = table.astype(np.float32)
    config = dataclasses.replace(model.config, text=text)
    model, profile = SiglipModel(config, model.execution), custom_profile(config, 0)
    save(parent / "gemma-ours", model, params, profile=profile, vocabulary=vocabulary)
    convert(parent / "gemma-ours", parent / "gemma", to="transformers")
    tokenize = transformers.Siglip2Tokenizer.from_pretrained(parent / "gemma")
    for file in (*(parent / "gemma").glob("tokenizer*"), parent / "gemma/sentencepiece.model"):
        file.unlink(missing_ok=True)
    tokenize.save_pretrained(parent / "gemma")
    return parent / "gemma", tokenize


def text_doctor(folder, system):
    loaded = load(folder, profile=system)
    return Doctor(
        loaded.model,
        loaded.params,
        loaded.profile,
        lambda profile: dataclasses.replace(loaded, profile=profile).tokenizer(),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_naflex_texts(naflex_texts, precision):
    path, tokenize = naflex_texts
    theirs = texts(path, tokenize, precision)
    expect_right(text_doctor(path, "transformers").diagnose("text", theirs), precision)


def test_naflex_texts_with_an_attention_mask(naflex_texts):
    path, tokenize = naflex_texts
    found = text_doctor(path, "transformers").diagnose("text", texts(path, tokenize, masked=True))
    assert found.verdict == "explained"
    assert ("mask", "padding") in (*found.best.setting, *(one for tie in found.ties for one in tie))


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
    assert (right.verdict, right.best.setting) == ("same", ())
    found = naflex(256).diagnose("image", theirs)
    assert (found.verdict, found.best.setting) == ("explained", (("res", patches),))
    assert right.rounding is None and found.rounding is None


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
