"""A converted model's tokenizer in transformers and open_clip gives the ids that it has here."""

import dataclasses

import numpy as np
import pytest
from torch_libraries import import_libraries
from vocabularies import GEMMA_LIKE, SIGLIP_LIKE, trained

torch, transformers, open_clip = import_libraries("transformers", "open_clip")

from saved_model import with_vocabulary  # noqa: E402

import siglip_jax  # noqa: E402
from siglip_jax.converters import convert, tokenizer_json  # noqa: E402
from siglip_jax.model_files import open_model  # noqa: E402
from siglip_jax.models import SiglipModel  # noqa: E402
from siglip_jax.preprocessing import Tokenizer, custom_profile  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
TEXTS = ["cat", "Cat!", *tokenizer_json.PROBES]


def saved(folder, vocabulary, pad, lower, name):
    tiny, params, _ = with_vocabulary(name)
    text = dataclasses.replace(tiny.config.text, vocab_size=400)
    config = dataclasses.replace(tiny.config, text=text)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(400, text.size.width)).astype(np.float32)
    params["txt"]["Embed_0"]["embedding"] = table
    profile = custom_profile(config, pad)
    how = dataclasses.replace(profile.text, lower=lower)
    model = SiglipModel(config, tiny.execution)
    profile = dataclasses.replace(profile, text=how)
    siglip_jax.save(folder, model, params, profile=profile, vocabulary=vocabulary)
    return how


def encoded(tokenizer, length):
    kw = {"padding": "max_length", "truncation": True, "max_length": length}
    return tokenizer(text=TEXTS, return_tensors="np", **kw)


def test_the_bundled_model(tmp_path):
    with open_model("siglip_emoji") as emoji:
        convert(emoji, tmp_path / "hf", to="transformers")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")(["cat"])["input_ids"] == [
        [940, 1]
    ]
    ours = siglip_jax.load("siglip_emoji").tokenizer().encode(TEXTS, warn=False)
    out = encoded(transformers.AutoProcessor.from_pretrained(tmp_path / "hf"), ours.shape[1])
    np.testing.assert_array_equal(out["input_ids"], ours)
    assert "attention_mask" not in out


@pytest.mark.parametrize("name", ["loop", "naflex"])
@pytest.mark.parametrize("lower", ["ascii", "unicode", "none"])
@pytest.mark.parametrize(("kind", "pad"), [(SIGLIP_LIKE, 0), (SIGLIP_LIKE, 1), (GEMMA_LIKE, 0)])
def test_a_model_of_ones_own(tmp_path, name, lower, kind, pad):
    vocabulary = trained(tmp_path / "v.model", **kind)
    text = saved(tmp_path / "own", vocabulary, pad, lower, name)
    convert(tmp_path / "own", tmp_path / "hf", to="transformers")
    ours = Tokenizer(vocabulary, text).encode(TEXTS, warn=False)
    for kind_of in (transformers.AutoTokenizer, transformers.AutoProcessor):
        out = encoded(kind_of.from_pretrained(tmp_path / "hf"), text.length)
        np.testing.assert_array_equal(out["input_ids"], ours)
    if name == "naflex":
        return
    convert(tmp_path / "own", tmp_path / "oc", to="open_clip")
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'oc'}")
    # open_clip mends every text before its tokenizer: spaces, entities, wide letters, ligatures.
    got = tokenize(TEXTS).numpy()
    same = [i for i, text in enumerate(TEXTS) if tokenize.clean_fn(text) == text]
    assert len(same) > 8
    np.testing.assert_array_equal(got[same], ours[same])


@pytest.mark.parametrize("kind", ["GemmaTokenizer", "Siglip2Tokenizer"])
def test_a_folder_that_transformers_5_saved(tmp_path, kind):
    """It keeps tokenizer.json alone; our ids are those of its class, here and converted back."""
    vocabulary = trained(tmp_path / "v.model", **GEMMA_LIKE)
    saved(tmp_path / "own", vocabulary, 0, "none", "loop")
    convert(tmp_path / "own", tmp_path / "hf", to="transformers")
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "hf")
    for file in (tmp_path / "hf").glob("tokenizer*"):
        file.unlink()
    theirs.save_pretrained(tmp_path / "hf")
    assert not list((tmp_path / "hf").glob("*.model"))
    loaded = siglip_jax.load(tmp_path / "hf")
    ours = loaded.tokenizer().encode(TEXTS, warn=False)
    length = ours.shape[1]
    np.testing.assert_array_equal(encoded(theirs, length)["input_ids"], ours)
    whole = (tmp_path / "hf" / "tokenizer.json").read_bytes()
    convert(tmp_path / "hf", tmp_path / "ours", to="siglip_jax")
    convert(tmp_path / "ours", tmp_path / "back", to="transformers")
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == whole
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    np.testing.assert_array_equal(encoded(again, length)["input_ids"], ours)
