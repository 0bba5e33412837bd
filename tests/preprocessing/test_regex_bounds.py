"""Regular expressions of a tokenizer.json: those that are in use pass, those that hang do not."""

import json

import pytest
from pair_files import PROFILE
from paths import FIXTURES

from siglip_jax.converters import tokenizer_json
from siglip_jax.converters.nfkc_steps import nfkc_steps
from siglip_jax.preprocessing import Tokenizer
from siglip_jax.preprocessing.regex_bounds import HardError, check_regex
from siglip_jax.preprocessing.tokenizer_json import text_steps

LETTER = r"[^\r\n\p{L}\p{N}]?"
USED = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{LETTER}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    LETTER + r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"<\|startoftext\|>|<\|endoftext\|>|'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    *(" {2,}", r"\s+", r"\A +", r"[]a]+", r"(?:abc)+x", "^ *$", "a{x}*", r"\x{41}+"),
]
HARD = [
    *("(a+)+$", "(a*)*b", "(a|a)*b", "(?:a?){60}a{60}", "(.*)*(.*)*x", "(.*a){30}", ".*.*.*x"),
    *(r"(?:.|.|.|.){14}\z\A", ".?" * 40 + "x", "(?:a|b|ab)*c", r"(a)\1+", r"(?<n>a|b\g<n>c)"),
    *("(?:(?:a{1,50}){1,50}){1,50}", "a{1,1000}{1,1000}b", "(?:a??)*?b", "(" * 30 + ")" * 30),
]


@pytest.mark.parametrize("pattern", USED)
def test_expressions_in_use(pattern):
    check_regex(pattern)


def test_our_own_expressions():
    steps = [*nfkc_steps(), *text_steps("unicode", "canonicalize")]
    patterns = [s["pattern"]["Regex"] for s in steps if "Regex" in s.get("pattern", {})]
    assert len(patterns) > 3
    for pattern in patterns:
        check_regex(pattern)


@pytest.mark.parametrize("pattern", HARD)
def test_expressions_that_may_take_for_ever(pattern):
    with pytest.raises(HardError, match="may take for ever"):
        check_regex(pattern)


@pytest.mark.parametrize("where", ["normalizer", "pre_tokenizer"])
def test_a_file_with_one_is_one_line(tmp_path, where):
    path = tmp_path / "tokenizer.json"
    tokenizer_json.write(path, FIXTURES / "tiny.model", PROFILE.text)
    whole = json.loads(path.read_text())
    pattern = {"Regex": "(a+)+$"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    steps = {
        "normalizer": {"type": "Replace", "pattern": pattern, "content": ""},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]},
    }
    path.write_text(json.dumps(whole | {where: steps[where]}))
    with pytest.raises(ValueError, match=r"its regular expression '\(a\+\)\+\$' may take for ever"):
        Tokenizer(path, PROFILE.text)


def test_an_expression_that_fails_on_a_text_is_an_error_of_that_text(tmp_path, monkeypatch):
    """Oniguruma gives up after millions of steps, and tokenizers panics."""
    monkeypatch.setattr("siglip_jax.preprocessing.tokenizer_json.check_regex", lambda pattern: None)
    path = tmp_path / "tokenizer.json"
    tokenizer_json.write(path, FIXTURES / "tiny.model", PROFILE.text)
    whole = json.loads(path.read_text())
    whole["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    path.write_text(json.dumps(whole))
    tokenizer = Tokenizer(path, PROFILE.text)
    with pytest.raises(ValueError, match="retry-limit-in-match over"):
        tokenizer.encode("a" * 60 + "!")
