"""A tokenizer.json gives the ids of the vocabulary it was made of, or is not written."""

import json
import random
from dataclasses import replace

import pytest
import sentencepiece
import tokenizers
from paths import FIXTURES
from vocabularies import GEMMA_LIKE, SIGLIP_LIKE, WITHOUT_BYTES, trained

from siglip_jax.converters import hf_tokenizer, tokenizer_json
from siglip_jax.converters.sentencepiece_model import Kind, read_sentencepiece_model
from siglip_jax.preprocessing import Tokenizer
from siglip_jax.preprocessing.profiles import TextProfile
from siglip_jax.preprocessing.tokenizer_json import read_normalizer, text_settings

TEXT = TextProfile(vocabulary=None, rows=1000, length=12, pad=0, lower="none", clean="none")
KINDS = {
    "siglip": SIGLIP_LIKE,
    "gemma": GEMMA_LIKE,
    "bpe": {**SIGLIP_LIKE, "model_type": "bpe"},
    "no bytes": {**SIGLIP_LIKE, **WITHOUT_BYTES},
    "bpe without bytes": {**SIGLIP_LIKE, **WITHOUT_BYTES, "model_type": "bpe"},
    "as it is": {**SIGLIP_LIKE, "normalization_rule_name": "identity"},
    "spaces kept": {**SIGLIP_LIKE, "remove_extra_whitespaces": False},
    "no prefix": {**SIGLIP_LIKE, "add_dummy_prefix": False},
    "nfkc, folded": {**SIGLIP_LIKE, "normalization_rule_name": "nfkc_cf"},
    "own pieces": {**SIGLIP_LIKE, "user_defined_symbols": "<img>,red cat"},
    "bpe, own pieces": {**GEMMA_LIKE, "user_defined_symbols": "<img>,\u2581\u2581"},
}
ALPHABETS = (
    "abcdef redcatdog  ,.-_<>",
    "\u00e9\u00c9\u00df\u00c5 AZ",
    "\u732b\u306d\u3053 \u4e00",
    "\U0001f600 \u2764\ufe0f 1\u00bd\n",
    "<img> red cat",
    ("a", "e\u0301", "e\u0302\u0323", "e\u0323\u0302", "\u00ea\u0323", "o\u031b\u0323"),
    "\u0651\u064e\u0628\u0650",
    "\u30ab\u3099\uff76\uff9e\uff5e",
)


@pytest.fixture(params=KINDS)
def vocabulary(request, tmp_path):
    return trained(tmp_path / "some.model", **KINDS[request.param])


def texts(count, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        parts = (rng.choice(ALPHABETS) for _ in range(rng.randint(1, 4)))
        yield " ".join("".join(rng.choices(part, k=rng.randint(0, 8))) for part in parts)


def test_its_ids_are_sentencepieces(vocabulary, tmp_path):
    tokenizer_json.write(tmp_path / "tokenizer.json", vocabulary, TEXT)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*texts(300), *tokenizer_json.PROBES]:
        assert theirs.encode(text).ids == [*pieces.EncodeAsIds(text), 1], text
    assert theirs.get_vocab_size() == pieces.GetPieceSize()


def test_what_the_file_says_is_what_sentencepiece_reads(vocabulary):
    read = read_sentencepiece_model(vocabulary)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    assert [piece.text for piece in read.pieces] == [
        pieces.IdToPiece(id) for id in range(pieces.GetPieceSize())
    ]
    for id, piece in enumerate(read.pieces):
        assert piece.score == pieces.GetScore(id)
        assert (piece.kind == Kind.CONTROL) == pieces.IsControl(id)
        assert (piece.kind == Kind.BYTE) == pieces.IsByte(id)
        assert (piece.kind == Kind.UNKNOWN) == pieces.IsUnknown(id)


@pytest.mark.parametrize("lower", ["none", "ascii", "unicode"])
@pytest.mark.parametrize("clean", ["none", "delete_punctuation", "canonicalize"])
def test_case_and_cleaning_are_in_it_and_read_back(tmp_path, lower, clean):
    text = replace(TEXT, lower=lower, clean=clean)
    vocabulary = trained(tmp_path / "some.model", **SIGLIP_LIKE)
    file = tmp_path / "tokenizer.json"
    tokenizer_json.write(file, vocabulary, text)
    assert text_settings(read_normalizer(file.read_text()))[:2] == (lower, clean)
    theirs = tokenizers.Tokenizer.from_file(str(file))
    alike = theirs.encode("Red-CAT \u00c9").ids
    assert (alike == theirs.encode("red-cat \u00c9").ids) == (lower != "none")
    assert (alike == theirs.encode("Red-CAT \u00e9").ids) == (lower == "unicode")
    assert (alike == theirs.encode("RedCAT \u00c9").ids) == (clean != "none")
    # And one of ours reads it as a vocabulary, of which case and cleaning are the profile's.
    for other in (text, TEXT):
        ours = [Tokenizer(path, other).encode(tokenizer_json.PROBES, warn=False)
                for path in (file, vocabulary)]  # fmt: skip
        assert (ours[0] == ours[1]).all()


def test_other_ids_are_refused(tmp_path, monkeypatch):
    vocabulary = trained(tmp_path / "some.model", **SIGLIP_LIKE)
    monkeypatch.setattr(tokenizer_json, "text_steps", lambda lower, clean: [])
    with pytest.raises(ValueError, match=r"some.model: tokenizer.json would give other ids for 'T"):
        tokenizer_json.write(tmp_path / "t", vocabulary, replace(TEXT, lower="ascii"))


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_kind_that_tokenizers_has_not(tmp_path, kind):
    options = {**SIGLIP_LIKE, "model_type": kind, "byte_fallback": False}
    vocabulary = trained(tmp_path / "some.model", **options)
    with pytest.raises(ValueError, match=rf"no form for it: a sentencepiece model of kind {kind}"):
        tokenizer_json.write(tmp_path / "tokenizer.json", vocabulary, TEXT)


def test_families(tmp_path):
    found = {
        name: hf_tokenizer.family(trained(tmp_path / "some.model", **options))
        for name, options in KINDS.items()
    }
    siglip = {"siglip", "no bytes", "spaces kept", "nfkc, folded", "own pieces"}
    assert {name for name, of in found.items() if of == "siglip"} == siglip
    assert {name for name, of in found.items() if of == "gemma"} == {"gemma", "bpe, own pieces"}
    assert hf_tokenizer.family(FIXTURES / "tiny.model") == "siglip"


def test_a_literal_control_piece_is_text_here(tmp_path):
    vocabulary = trained(tmp_path / "some.model", **GEMMA_LIKE)
    tokenizer_json.write(tmp_path / "tokenizer.json", vocabulary, TEXT)
    ours = [Tokenizer(path, TEXT).encode("a<eos>b")[0].tolist()
            for path in (vocabulary, tmp_path / "tokenizer.json")]  # fmt: skip
    assert ours[0] == ours[1] and ours[0].count(1) == 1


def test_damaged_files(tmp_path):
    (tmp_path / "x.model").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"x.model: not a sentencepiece model"):
        read_sentencepiece_model(tmp_path / "x.model")
    for text in ('{"version": "1.0"', json.dumps({"model": {"type": "BPE"}})):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match=r"nor, as it begins, a tokenizer\.json: "):
            Tokenizer(tmp_path / "tokenizer.json", TEXT)
