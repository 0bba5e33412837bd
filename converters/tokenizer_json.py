"""A `tokenizer.json` that gives the ids of a sentencepiece vocabulary under a text profile.

Its steps are sentencepiece's own, in its order (`normalizer.cc`, `unigram_model.cc`,
`bpe_model.cc` of 0.2): what the charsmap says, spaces squeezed, the dummy prefix, pieces.
"""

import base64
import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

from siglip_jax.json_text import parsed
from siglip_jax.preprocessing.profiles import TextProfile
from siglip_jax.preprocessing.text import Tokenizer
from siglip_jax.preprocessing.tokenizer_json import (
    Step,
    ids_by_file,
    read_normalizer,
    replace,
    text_settings,
    text_steps,
)

from .nfkc_steps import NAMES, nfkc_steps
from .sentencepiece_model import Kind, SentencepieceModel, read_sentencepiece_model

NAME = "tokenizer.json"
_MARK = "\u2581"  # of a space
_LENGTH = 256

# Texts by which two tokenizers are compared: case, accents, scripts, emoji, spaces, empty, long.
PROBES = (
    "",
    "cat",
    "a photo of a cat",
    "Two Dogs, on a  mat!",
    "  spaces at both ends  ",
    "\u00c9T\u00c9 caf\u00e9 CAF\u00c9 na\u00efve e\u0301",
    "Vie\u0323\u0302t Vi\u00ea\u0323t n\u0303 \u30ab\u3099 \uff76\uff9e \uff5e \u1112\u1161\u11ab",
    "Stra\u00dfe \u0130stanbul \u039f\u0394\u039f\u03a3",
    "\u4e00\u53ea\u732b\u5728\u7761\u89c9\u3002 \u30cd\u30b3 \uace0\uc591\uc774",
    "\u043a\u043e\u0448\u043a\u0430 \u041c\u0418\u0420 \u0642\u0637\u0629",
    "\u0e41\u0e21\u0e27 \u092c\u093f\u0932\u094d\u0932\u0940",
    "\U0001f600\U0001f44d\U0001f3fd \u2764\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "tab\there\nline\u00a0nbsp\u3000wide",
    "\uff46\uff55\uff4c\uff4c \ufb01 \u00bd",
    "1,234.5 \u20ac x_y-z #tag",
    "salt &amp; pepper <3",
    "cat " * 300,
)


def make(model: SentencepieceModel, text: TextProfile) -> dict[str, Any]:
    """The `tokenizer.json` of a vocabulary, as plain JSON types.

    Raises:
      ValueError: if `tokenizers` has no form for it.
    """
    makers = {"unigram": _unigram, "bpe": _bpe}
    if model.algorithm not in makers:
        raise ValueError(f"a sentencepiece model of kind {model.algorithm}")
    if model.suffix or not model.escape:
        raise ValueError("a sentencepiece model with marks of spaces in other places")
    if any(piece.kind == Kind.UNUSED for piece in model.pieces):
        raise ValueError("a sentencepiece model with unused pieces")
    eos = model.pieces[text.eos].text
    ending = {"SpecialToken": {"id": eos, "type_id": 0}}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, ending]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _special(id, piece.text)
            for id, piece in enumerate(model.pieces)
            if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*text_steps(text.lower, text.clean), *_normalizers(model)],
        },
        "pre_tokenizer": _user_defined(model) if model.algorithm == "bpe" else None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}, ending],
            "special_tokens": {eos: {"id": eos, "ids": [text.eos], "tokens": [eos]}},
        },
        "decoder": {"type": "Sequence", "decoders": _decoders(model)},
        "model": makers[model.algorithm](model),
    }


def _special(id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **flags, "special": True}


def _normalizers(model: SentencepieceModel) -> list[Step]:
    steps: list[Step] = []
    if model.charsmap:
        if model.normalization in NAMES:
            steps += nfkc_steps()
        charsmap = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if model.squeeze:
        steps += [replace(r"\A +", "", regex=True), replace(" {2,}", " ", regex=True)]
    if model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": _MARK})
    steps.append(replace(" ", _MARK))
    if model.squeeze:
        # Behind the marks, as in sentencepiece: a text that ends with a mark loses it too.
        steps.append(replace(f"{_MARK}+\\z", "", regex=True))
    return steps


def _decoders(model: SentencepieceModel) -> list[Step]:
    steps = [replace(_MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if model.dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps


def _unigram(model: SentencepieceModel) -> dict[str, Any]:
    scores = [piece.score for piece in model.pieces if piece.kind == Kind.NORMAL]
    least, most = min(scores), max(scores)
    vocabulary: list[list[str | float]] = []
    for piece in model.pieces:
        score = piece.score
        if piece.kind == Kind.USER_DEFINED:
            # Sentencepiece scores them so that they always win.
            score = len(piece.text.encode()) * most - 0.1
        elif piece.kind != Kind.NORMAL:
            score = least  # not less: what is unknown costs the least score and 10 more
        vocabulary.append([piece.text, score])
    kinds = [piece.kind for piece in model.pieces]
    return {
        "type": "Unigram",
        "unk_id": kinds.index(Kind.UNKNOWN),
        "vocab": vocabulary,
        "byte_fallback": model.byte_fallback,
    }


def _bpe(model: SentencepieceModel) -> dict[str, Any]:
    normal = {
        piece.text: (-piece.score, id)
        for id, piece in enumerate(model.pieces)
        if piece.kind == Kind.NORMAL
    }
    # Sentencepiece merges whichever pair makes the piece of the best score.
    merges = sorted(
        (rank, piece[:at], piece[at:])
        for piece, rank in normal.items()
        for at in range(1, len(piece))
        if piece[:at] in normal and piece[at:] in normal
    )
    kinds = [piece.kind for piece in model.pieces]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": model.pieces[kinds.index(Kind.UNKNOWN)].text,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.byte_fallback,
        "ignore_merges": Kind.USER_DEFINED in kinds,
        "vocab": {piece.text: id for id, piece in enumerate(model.pieces)},
        "merges": [[left, right] for _, left, right in merges],
    }


def _user_defined(model: SentencepieceModel) -> Step | None:
    """Pieces that sentencepiece finds first and never merges."""
    pieces = [piece.text for piece in model.pieces if piece.kind == Kind.USER_DEFINED]
    if not pieces:
        return None
    pattern = "|".join(map(re.escape, sorted(pieces, key=len, reverse=True)))
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def write(path: Path, vocabulary: Path, text: TextProfile) -> None:
    """Writes the `tokenizer.json` of a vocabulary file, and proves its ids.

    A `tokenizer.json` is copied where its case and cleaning are the profile's.

    Raises:
      ValueError: if there is none for this vocabulary, or it gives other ids.
    """
    source = vocabulary.read_bytes()
    if source.lstrip().startswith(b"{"):
        whole = source.decode()
        lower, clean, steps = text_settings(read_normalizer(whole))
        if (lower, clean) == (text.lower, text.clean):
            path.write_bytes(source)
            return
        plain = parsed(whole)
        steps = [*text_steps(text.lower, text.clean), *steps]
        plain["normalizer"] = {"type": "Sequence", "normalizers": steps} if steps else None
        source = _dumped(plain)
    else:
        try:
            source = _dumped(make(read_sentencepiece_model(vocabulary), text))
        except ValueError as error:
            raise ValueError(f"{vocabulary}: tokenizer.json has no form for it: {error}") from error
    path.write_bytes(source)
    _prove(path, vocabulary, text)


def _dumped(plain: dict[str, Any]) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


def _prove(path: Path, vocabulary: Path, text: TextProfile) -> None:
    """By the package alone that other libraries read the file with."""
    # Longer than a context, to see more of each text; ids are compared, not looked up.
    text = dataclasses.replace(text, length=_LENGTH, rows=2**31)
    # A text profile resolves HTML entities, which no tokenizer.json can.
    entities = text.clean == "canonicalize"
    probes = [probe for probe in PROBES if not entities or html.unescape(probe) == probe]
    theirs = ids_by_file(path, probes, length=text.length, pad=text.pad)
    ours: list[list[int]] = Tokenizer(vocabulary, text).encode(probes, warn=False).tolist()
    for probe, got, want in zip(probes, theirs, ours, strict=True):
        if got != want:
            raise ValueError(
                f"{vocabulary}: tokenizer.json would give other ids for {probe[:40]!r}: "
                f"{got[:8]}, not {want[:8]}"
            )
