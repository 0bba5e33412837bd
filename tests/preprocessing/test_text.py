"""Tokenization: published ids, and the rules around a tiny committed vocabulary."""

import dataclasses
import json
import string
import warnings

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import FIXTURES, SHARED

from siglip_jax.checkpoints import find
from siglip_jax.preprocessing import TextProfile, Tokenizer, clean_text, profile_for

TINY = FIXTURES / "tiny.model"
V1, V2, NAFLEX = (find(f"siglip{name}") for name in ("_b16_224", "2_b16_224", "2_b16_naflex"))
PROFILE = TextProfile(vocabulary=None, rows=320, length=8, pad=1, lower="ascii", clean="none")
RAW = sentencepiece.SentencePieceProcessor(model_file=str(TINY))

VOCABULARIES = SHARED / "tokenizers"
needs_vocabularies = pytest.mark.skipif(
    not VOCABULARIES.exists(), reason="../shared/tokenizers is not here"
)
FILES = {
    "siglip_c4_en": "siglip_c4_en/spiece.rebuilt.model",
    "gemma": "gemma_rebuilt/tokenizer.rebuilt.model",
}


def published(name, group, profile):
    """(text, ids) of a system's own tests, and our ids."""
    cases = json.loads((VOCABULARIES / "expected_ids.json").read_text())[name][group]
    ids = Tokenizer(VOCABULARIES / FILES[name], profile).encode([text for text, _ in cases])
    assert cases and ids.dtype == np.int32
    return zip(cases, ids.tolist(), strict=True)


@needs_vocabularies
class TestPublishedIds:
    @pytest.mark.parametrize("name", ["transformers", "open_clip"])
    def test_c4_en(self, name):
        for (text, golden), ids in published("siglip_c4_en", "cases", profile_for(V1, name).text):
            assert ids == [*golden, *[1] * (64 - len(golden))], text

    def test_c4_en_without_cleaning(self):
        profile = dataclasses.replace(profile_for(V1).text, lower="none")
        for (text, golden), ids in published("siglip_c4_en", "raw_text_cases", profile):
            assert ids == [*golden, *[1] * (64 - len(golden))], text

    def test_c4_en_padded_example(self):
        text, golden = json.loads((VOCABULARIES / "expected_ids.json").read_text())["siglip_c4_en"][
            "padded_example"
        ]
        tokenizer = Tokenizer(VOCABULARIES / FILES["siglip_c4_en"], profile_for(V1).text)
        assert tokenizer.encode(text).tolist() == [[*golden, *[1] * (64 - len(golden))]]

    def test_big_vision_keeps_punctuation_and_umlauts(self):
        tokenizer = Tokenizer(VOCABULARIES / FILES["siglip_c4_en"], profile_for(V1).text)
        lower, mixed, other = tokenizer.encode(["zürich.", "Zürich.", "ZÜRICH."])
        assert lower.tolist() == mixed.tolist() != other.tolist()
        assert lower.tolist()[:6] == [262, 761, 5879, 5345, 259, 1]

    def test_gemma(self):
        # transformers' fixed-resolution SigLIP 2 does not lower-case, so ids match as published.
        for (text, golden), ids in published(
            "gemma", "cases", profile_for(V2, "transformers").text
        ):
            assert ids == [*golden, 1, *[0] * (63 - len(golden))], text

    @pytest.mark.parametrize(("model", "name"), [(V2, "big_vision"), (NAFLEX, "transformers")])
    def test_gemma_lower_cases_where_the_system_does(self, model, name):
        tokenizer = Tokenizer(VOCABULARIES / FILES["gemma"], profile_for(model, name).text)
        upper, lower = tokenizer.encode(["A Potted PLANT", "a potted plant"])
        assert upper.tolist() == lower.tolist() == [235250, 151925, 4829, 1, *[0] * 60]

    @pytest.mark.parametrize(("model", "name"), [(V1, "siglip_c4_en"), (V2, "gemma")])
    def test_byte_fallback(self, model, name):
        file = VOCABULARIES / FILES[name]
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
        text = "a \u16a0 rune"
        ids = [
            i for i in Tokenizer(file, profile_for(model).text).encode(text)[0].tolist() if i > 1
        ]
        spelled = [pieces.IdToPiece(i) for i in ids]
        if "\u16a0" not in spelled:
            at = spelled.index("<0xE1>")
            assert spelled[at : at + 3] == ["<0xE1>", "<0x9A>", "<0xA0>"]
        assert pieces.unk_id() not in ids
        assert pieces.Decode(ids) == text

    def test_the_other_vocabulary_is_named(self):
        message = (
            "wrong vocabulary: it has 256,000 pieces, which looks like gemma; the model needs "
            "c4_en with 32,000: spiece.model of google/siglip-base-patch16-224 or https://"
        )
        with pytest.raises(ValueError, match=message):
            Tokenizer(VOCABULARIES / FILES["gemma"], profile_for(V1).text)
        with pytest.raises(ValueError, match="looks like c4_en; the model needs gemma"):
            Tokenizer(VOCABULARIES / FILES["siglip_c4_en"], profile_for(V2).text)


def test_fixed_length_and_padding():
    ids = RAW.EncodeAsIds("a dog")
    assert Tokenizer(TINY, PROFILE).encode(["A Dog", ""]).tolist() == [
        [*ids, *[1] * (8 - len(ids))],
        [1] * 8,
    ]
    zeros = Tokenizer(TINY.read_bytes(), dataclasses.replace(PROFILE, pad=0)).encode("a dog")
    assert zeros.tolist() == [[*ids, 1, *[0] * (7 - len(ids))]]
    assert zeros.dtype == np.int32


def test_byte_fallback_spells_what_has_no_piece():
    ids = [i for i in Tokenizer(TINY, PROFILE).encode("猫")[0].tolist() if i != 1]
    assert [RAW.IdToPiece(i) for i in ids][-3:] == ["<0xE7>", "<0x8C>", "<0xAB>"]


def test_end_of_text_is_sticky():
    text = "a photo of a dog on the sand"
    ids = RAW.EncodeAsIds(text)
    tokenizer = Tokenizer(TINY, PROFILE)
    with pytest.warns(UserWarning, match=r"^2 of 3 texts are longer than 8 tokens and were cut$"):
        encoded = tokenizer.encode([text, "a dog", text])
    assert encoded[0].tolist() == encoded[2].tolist() == [*ids[:7], 1]


@pytest.mark.parametrize(("spare", "cut"), [(2, False), (1, False), (0, True), (-1, True)])
def test_a_text_as_long_as_the_context(spare, cut):
    ids = RAW.EncodeAsIds("a photo of a dog")
    length = len(ids) + spare
    tokenizer = Tokenizer(TINY, dataclasses.replace(PROFILE, length=length, pad=0))
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        encoded = tokenizer.encode("a photo of a dog")[0].tolist()
    assert bool(raised) == cut
    assert encoded == ([*ids[: length - 1], 1] if cut else [*ids, 1, 0][:length])


@pytest.mark.parametrize(
    ("lower", "text", "expected"),
    [
        ("ascii", "Zürich É ЖЩ", "zürich É ЖЩ"),
        ("unicode", "Zürich É ЖЩ", "zürich é жщ"),
        ("none", "Zürich É", "Zürich É"),
    ],
)
def test_lower_casing(lower, text, expected):
    assert clean_text(text, dataclasses.replace(PROFILE, lower=lower)) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("big_vision", "A_dog,  isn't\tit?", "a_dog,  isn't\tit?"),
        ("transformers", " A_dog,  isn't\tit?", "adog isnt it"),
        ("transformers", "\u2581a\u2581b", "a b"),
        ("open_clip", "A_dog,  isn't\tit?", "a dog isnt it"),
        ("open_clip", "salt &amp;amp; pepper &lt;3", "salt pepper 3"),
        ("open_clip", "\u201cisn\u2019t it?\u201d", "isnt it"),
        ("open_clip", "cafe\u0301", "caf\u00e9"),
    ],
)
def test_cleaning(name, text, expected):
    assert clean_text(text, profile_for(V1, name).text) == expected


def test_cleaning_that_keeps_punctuation():
    profile = dataclasses.replace(profile_for(V1).text, lower="none", clean="whitespace")
    text = " A_dog,  isn\u2019t\tit? salt &amp;amp; cafe\u0301 "
    assert clean_text(text, profile) == "A_dog, isn't it? salt & caf\u00e9"


@settings(deadline=None)
@given(st.text(st.sampled_from(string.printable + "\u2581\u00dc\u732b\u3000"), max_size=30))
def test_transformers_prefix_changes_nothing(text):
    # What SiglipTokenizer does: an explicit boundary, "<unk>" before it, its pieces dropped.
    text = text.encode("utf-8", "ignore").decode()
    marked = "\u2581" + text.replace("\u2581", " ").lower()
    marked = " ".join(marked.translate(str.maketrans("", "", string.punctuation)).split())
    dropped = len(RAW.EncodeAsIds("<unk>"))
    profile = dataclasses.replace(PROFILE, clean="delete_punctuation", lower="unicode", length=200)
    ids = Tokenizer(TINY, profile).encode(text)[0].tolist()
    assert ids[: ids.index(1)] == RAW.EncodeAsIds("<unk>" + marked)[dropped:]


def test_ids_outside_the_embedding():
    rows = RAW.PieceToId("▁dog")
    tokenizer = Tokenizer(TINY, dataclasses.replace(PROFILE, rows=rows))
    message = (
        rf"text 1 \('a dog'\): piece '▁dog' has id {rows}, but the model's token embedding "
        rf"has {rows} rows"
    )
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(["", "a dog"])


def test_wrong_texts():
    tokenizer = Tokenizer(TINY, PROFILE)
    with pytest.raises(ValueError, match="text 1: expected a string, got float: "):
        tokenizer.encode(["a dog", 2.5])
    with pytest.raises(ValueError, match="text 0: expected a string, got bytes"):
        tokenizer.encode([b"a dog"])
    for wrong in (None, b"a dog", 3):
        with pytest.raises(ValueError, match="expected a string or a list of strings, got "):
            tokenizer.encode(wrong)
    with pytest.raises(ValueError, match="text 0: not valid Unicode: 'a\\\\ud800'"):
        tokenizer.encode(["a\ud800"])
    assert tokenizer.encode([]).shape == (0, 8)
    assert tokenizer.encode(np.array(["a dog", "a cat"])).shape == (2, 8)


@pytest.mark.parametrize("data", [b"", b"not a model", b'{"version": "1.0"}', bytes(200)])
def test_a_file_that_is_no_vocabulary(tmp_path, data):
    path = tmp_path / "spiece.model"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"spiece\.model: not a sentencepiece model; ") as raised:
        Tokenizer(path, PROFILE)
    assert "\n" not in str(raised.value)


def test_a_vocabulary_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.model: vocabulary cannot be read: No such file"):
        Tokenizer(tmp_path / "gone.model", PROFILE)


def test_a_vocabulary_of_another_size_or_end_of_text():
    with pytest.raises(ValueError, match="it has 320 pieces; the model needs mc4 with 250,100"):
        Tokenizer(TINY, profile_for(find("siglip_b16_256_i18n")).text)
    with pytest.raises(ValueError, match="its end-of-text id is 1, the model needs 2"):
        Tokenizer(TINY, dataclasses.replace(PROFILE, eos=2))
