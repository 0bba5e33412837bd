"""A converted model keeps its tokenizer: the ids, case and cleaning that its profile states."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tokenizers
from saved_model import with_vocabulary
from vocabularies import GEMMA_LIKE, SIGLIP_LIKE, trained

import siglip_jax
from siglip_jax.config import Siglip
from siglip_jax.converters import convert, hf_tokenizer, open_checkpoint, tokenizer_json
from siglip_jax.model_files import open_model
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Tokenizer, custom_profile

TEXTS = ["cat", "Cat!", *tokenizer_json.PROBES]


def own(folder, vocabulary, pad, lower="ascii", clean="none", name="loop"):
    """A folder of ours with its own vocabulary and treatment of texts; its text profile."""
    tiny, params, _ = with_vocabulary(name)
    rows = 400
    text = dataclasses.replace(tiny.config.text, vocab_size=rows, length=16)
    config: Siglip = dataclasses.replace(tiny.config, text=text)
    rng = np.random.default_rng(0)
    width = text.size.width
    params["txt"]["Embed_0"]["embedding"] = rng.normal(size=(rows, width)).astype(np.float32)
    params["txt"]["pos_embedding"] = rng.normal(size=(1, 16, width)).astype(np.float32)
    profile = custom_profile(config, pad)
    how = dataclasses.replace(profile.text, lower=lower, clean=clean)
    profile = dataclasses.replace(profile, text=how)
    model = SiglipModel(config, tiny.execution)
    siglip_jax.save(folder, model, params, profile=profile, vocabulary=vocabulary)
    return profile.text


def card(folder):
    return json.loads((folder / "tokenizer_config.json").read_text())


def ids(folder, length):
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.enable_truncation(length)
    pad = theirs.token_to_id(card(folder)["pad_token"])
    theirs.enable_padding(length=length, pad_id=pad)
    return np.array([one.ids for one in theirs.encode_batch(TEXTS)])


def test_the_bundled_model(tmp_path):
    with open_model("siglip_emoji") as emoji:
        convert(emoji, tmp_path / "hf", to="transformers")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    assert theirs.encode("cat").ids == theirs.encode("Cat").ids == [940, 1]
    assert theirs.get_vocab_size() == 2048
    assert card(tmp_path / "hf")["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("to", ["transformers", "open_clip"])
@pytest.mark.parametrize("lower", ["ascii", "unicode", "none"])
@pytest.mark.parametrize("clean", ["none", "delete_punctuation"])
@pytest.mark.parametrize(("kind", "pad"), [(SIGLIP_LIKE, 0), (SIGLIP_LIKE, 1), (GEMMA_LIKE, 0)])
def test_ids_of_a_model_of_ones_own(tmp_path, to, lower, clean, kind, pad):
    text = own(tmp_path / "own", trained(tmp_path / "v.model", **kind), pad, lower, clean)
    convert(tmp_path / "own", tmp_path / "x", to=to)
    made = tmp_path / "x"
    released = {(1, "unicode", "delete_punctuation"): "SiglipTokenizer"}
    if kind is GEMMA_LIKE:
        released[0, "none", "none"] = "GemmaTokenizer"
    name = released.get((pad, lower, clean), "PreTrainedTokenizerFast")
    assert card(made)["tokenizer_class"] == name
    assert card(made)["model_max_length"] == 16
    assert (made / "tokenizer.json").exists() == (name == "PreTrainedTokenizerFast")
    ours = Tokenizer(tmp_path / "v.model", text).encode(TEXTS, warn=False)
    if name == "PreTrainedTokenizerFast":
        np.testing.assert_array_equal(ids(made, 16), ours)
        # And back: the vocabulary as it was, case and cleaning as they were.
        convert(made, tmp_path / "back", to="siglip_jax")
        with open_checkpoint(tmp_path / "back") as back:
            assert back.vocabulary.read_bytes() == (tmp_path / "v.model").read_bytes()
            assert back.profile.text == text


def test_a_naflex_model_of_ones_own(tmp_path):
    own(tmp_path / "own", trained(tmp_path / "v.model", **GEMMA_LIKE), 0, "ascii", name="naflex")
    convert(tmp_path / "own", tmp_path / "hf", to="transformers")
    # Else AutoTokenizer takes another class than the one named, with other rules.
    assert card(tmp_path / "hf")["auto_map"] == {"AutoTokenizer": [None, None]}
    with open_checkpoint(tmp_path / "hf") as source:
        assert source.text_settings == ("ascii", "none", True)
    own(tmp_path / "two", tmp_path / "v.model", 0, "unicode", name="naflex")
    convert(tmp_path / "two", tmp_path / "hf2", to="transformers")
    assert card(tmp_path / "hf2")["tokenizer_class"] == "GemmaTokenizer"


def json_alone(folder, vocabulary, text, name):
    """A folder of transformers, as transformers 5 saves one: without the sentencepiece file."""
    for file in folder.glob("*.model"):
        file.unlink()
    tokenizer_json.write(folder / "tokenizer.json", vocabulary, text)
    edited = {**card(folder), "tokenizer_class": name}
    (folder / "tokenizer_config.json").write_text(json.dumps(edited))


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("GemmaTokenizer", "none", "none"),
        ("Siglip2Tokenizer", "unicode", "unicode"),
        ("PreTrainedTokenizerFast", "none", "none"),
        ("TokenizersBackend", "ascii", "ascii"),
        ("PreTrainedTokenizerFast", "unicode", "unicode"),
    ],
)
@pytest.mark.parametrize("to", ["transformers", "open_clip"])
def test_a_folder_with_tokenizer_json_alone(tmp_path, name, written, read, to):
    vocabulary = trained(tmp_path / "v.model", **GEMMA_LIKE)
    text = own(tmp_path / "own", vocabulary, 0, written)
    convert(tmp_path / "own", tmp_path / "hf", to="transformers")
    json_alone(tmp_path / "hf", vocabulary, text, name)
    whole = (tmp_path / "hf" / "tokenizer.json").read_bytes()
    loaded = siglip_jax.load(tmp_path / "hf")
    assert loaded.profile.text.lower == read
    expected = Tokenizer(vocabulary, dataclasses.replace(text, lower=read))
    ours = loaded.tokenizer().encode(TEXTS, warn=False)
    np.testing.assert_array_equal(ours, expected.encode(TEXTS, warn=False))
    # Through our own format, and on from there.
    convert(tmp_path / "hf", tmp_path / "ours", to="siglip_jax")
    again = siglip_jax.load(tmp_path / "ours")
    assert again.vocabulary.read_bytes() == whole and again.profile.text == loaded.profile.text
    shutil.rmtree(tmp_path / "hf")
    convert(tmp_path / "ours", tmp_path / "back", to=to)
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == whole
    assert not list((tmp_path / "back").glob("*.model"))
    np.testing.assert_array_equal(ids(tmp_path / "back", 16), ours)


def test_what_is_built_like_the_released_stays_as_it_was(tmp_path):
    vocabulary = trained(tmp_path / "v.model", **SIGLIP_LIKE)
    own(tmp_path / "own", vocabulary, 1)
    convert(tmp_path / "own", tmp_path / "x.npz", to="npz")
    config = siglip_jax.load(tmp_path / "own").config
    for to, kind, pad, name, file in (
        ("transformers", SIGLIP_LIKE, 1, "SiglipTokenizer", "spiece.model"),
        ("open_clip", SIGLIP_LIKE, 1, "SiglipTokenizer", "spiece.model"),
        ("transformers", GEMMA_LIKE, 0, "GemmaTokenizer", "tokenizer.model"),
        ("open_clip", GEMMA_LIKE, 0, "GemmaTokenizer", "tokenizer.model"),
    ):
        vocabulary = trained(tmp_path / "v.model", **kind)
        folder = tmp_path / f"{to} {pad}"
        convert(tmp_path / "x.npz", folder, to=to, config=config, pad=pad, vocabulary=vocabulary)
        assert card(folder)["tokenizer_class"] == name
        assert (folder / file).read_bytes() == vocabulary.read_bytes()
        assert not (folder / "tokenizer.json").exists()


def test_a_vocabulary_of_neither_kind_is_ours_by_default(tmp_path):
    """Without a profile texts are treated as big_vision does; nothing names a released class."""
    vocabulary = trained(tmp_path / "v.model", **SIGLIP_LIKE)
    own(tmp_path / "own", vocabulary, 0)
    convert(tmp_path / "own", tmp_path / "x.npz", to="npz")
    config = siglip_jax.load(tmp_path / "own").config
    kw = {"config": config, "pad": 0, "vocabulary": vocabulary}
    convert(tmp_path / "x.npz", tmp_path / "hf", to="transformers", **kw)
    ours = Tokenizer(vocabulary, custom_profile(config, 0).text).encode(TEXTS, warn=False)
    np.testing.assert_array_equal(ids(tmp_path / "hf", 16), ours)
    assert hf_tokenizer.read_pad(tmp_path / "hf") == 0


def test_a_vocabulary_without_a_form_is_refused_before_anything_is_written(tmp_path):
    options = {**SIGLIP_LIKE, "model_type": "char", "byte_fallback": False}
    own(tmp_path / "own", trained(tmp_path / "v.model", **options), 0)
    with pytest.raises(ValueError, match=r"tokenizer.json has no form for it: .* kind char"):
        convert(tmp_path / "own", tmp_path / "hf", to="transformers")
    assert not (tmp_path / "hf").exists()
