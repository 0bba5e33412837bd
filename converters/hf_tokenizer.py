"""Tokenizer files as transformers' `AutoTokenizer` reads them, which open_clip uses too.

The released repositories hold a sentencepiece file and name a class that builds the rest
from it: `SiglipTokenizer`, `GemmaTokenizer`. Both belong to one kind of vocabulary and to one
treatment of case and punctuation; every other model gets a `tokenizer.json`, which says all
of it.
"""

import shutil
from pathlib import Path
from typing import Any, Literal, cast

from siglip_jax.preprocessing.profiles import TextProfile
from siglip_jax.preprocessing.tokenizer_json import (
    JsonPieces,
    TextSettings,
    is_tokenizer_json,
    read_normalizer,
    text_settings,
)

from . import tokenizer_json
from .checkpoint import VOCABULARY_FILES
from .json_file import read_settings, write_json
from .sentencepiece_model import read_sentencepiece_model

CONFIG, JSON = "tokenizer_config.json", tokenizer_json.NAME
Family = Literal["siglip", "gemma"]
# By what pads texts.
FAMILIES: dict[int, Family] = {0: "gemma", 1: "siglip"}

# Classes that take the backend from the file as it is.
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
_SIGLIP, _GEMMA = ("<pad>", "</s>", "<unk>"), ("<pad>", "<eos>", "<bos>", "<unk>")


def family(vocabulary: Path) -> Family | None:
    """Whose kind of vocabulary a file holds, by its control pieces and its normalizer."""
    if is_tokenizer_json(vocabulary):
        pieces = JsonPieces(vocabulary.read_text("utf-8"))
        count = min(4, pieces.GetPieceSize())
        names = tuple(pieces.IdToPiece(id) for id in range(count))
        return "gemma" if names == _GEMMA else None
    model = read_sentencepiece_model(vocabulary)
    like_gemma = model.algorithm == "bpe" and not model.charsmap and not model.dummy_prefix
    if model.control() == _GEMMA and like_gemma and model.byte_fallback:
        return "gemma"
    like_siglip = model.algorithm == "unigram" and model.charsmap and model.dummy_prefix
    return "siglip" if model.control()[:3] == _SIGLIP and like_siglip else None


def class_for(vocabulary: Path, text: TextProfile) -> str:
    """The class whose ids are those of `text`: a released one, or one that takes any file."""
    of, how = family(vocabulary), (text.lower, text.clean, text.pad, text.eos)
    if of == "siglip" and how == ("unicode", "delete_punctuation", 1, 1):
        return "SiglipTokenizer"
    # Of a NaFlex model AutoTokenizer makes a Siglip2Tokenizer, which lower-cases.
    if of == "gemma" and how in (("none", "none", 0, 1), ("unicode", "none", 0, 1)):
        return "GemmaTokenizer"
    return _GENERIC[0]


def write(
    folder: Path,
    vocabulary: Path,
    text: TextProfile,
    processor: str | None = None,
    *,
    naflex: bool = False,
) -> None:
    """Writes `tokenizer_config.json` and the vocabulary.

    Args:
      folder: where to.
      vocabulary: a sentencepiece file or a `tokenizer.json`.
      text: what the ids have to be.
      processor: the processor class that the tokenizer is a part of.
      naflex: whether it goes beside a whole NaFlex model, which changes what AutoTokenizer makes.

    Raises:
      ValueError: if no file gives the ids of `text`.
    """
    card: dict[str, Any] = {
        "model_max_length": text.length,
        "padding_side": "right",
        # A mask would hide the padding from the model, which was trained to see it.
        "model_input_names": ["input_ids"],
        "clean_up_tokenization_spaces": False,
    }
    name = class_for(vocabulary, text)
    if name == "GemmaTokenizer" and (text.lower == "unicode") != naflex:
        name = _GENERIC[0]
    card["tokenizer_class"] = name
    if name == "SiglipTokenizer":
        file = "spiece.model"
        card |= {
            "do_lower_case": True,
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
            "sp_model_kwargs": {},
        }
    elif name == "GemmaTokenizer":
        file = "tokenizer.model"
        card |= {
            "add_bos_token": False,
            "add_eos_token": True,
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        }
    else:
        # transformers reads the other file; this one goes back to us as it came.
        file = "sentencepiece.model"
        card |= _named(vocabulary, text)
        if naflex:
            # AutoTokenizer takes Siglip2Tokenizer for every NaFlex model, whatever the class
            # above, unless the card has this entry; it names no code.
            card["auto_map"] = {"AutoTokenizer": [None, None]}
    if processor is not None:
        card["processor_class"] = processor
    write_json(folder / CONFIG, card)
    if is_tokenizer_json(vocabulary) or name in _GENERIC:
        tokenizer_json.write(folder / JSON, vocabulary, text)
    if not is_tokenizer_json(vocabulary):
        shutil.copyfile(vocabulary, folder / file)


def _named(vocabulary: Path, text: TextProfile) -> dict[str, str]:
    if is_tokenizer_json(vocabulary):
        pieces = JsonPieces(vocabulary.read_text("utf-8"))
        return {"eos_token": pieces.IdToPiece(text.eos), "pad_token": pieces.IdToPiece(text.pad)}
    model = read_sentencepiece_model(vocabulary)
    return {
        "eos_token": model.pieces[text.eos].text,
        "pad_token": model.pieces[text.pad].text,
        "unk_token": model.unknown,
    }


def read_pad(folder: Path) -> int | None:
    """The padding id that a folder's tokenizer states: 1 if it pads with the end of text,
    else 0; None if it states nothing."""
    if not (folder / CONFIG).is_file():
        return None
    card = read_settings(folder / CONFIG)
    pad, eos = (_token(card.get(name)) for name in ("pad_token", "eos_token"))
    if pad is None:
        return None
    return 1 if pad == eos else 0


def read_text_settings(folder: Path, *, naflex: bool = False) -> TextSettings | None:
    """Case and cleaning that a folder's `tokenizer.json` states, as transformers goes by it.

    None where the folder is like the released ones, which a class with rules of its own reads.
    """
    if not (folder / JSON).is_file():
        return None
    card = read_settings(folder / CONFIG) if (folder / CONFIG).is_file() else None
    name = str(card.get("tokenizer_class", "")).removesuffix("Fast") if card else ""
    generic = name in ("", *(one.removesuffix("Fast") for one in _GENERIC))
    if name == "SiglipTokenizer" or (not generic and _sentencepiece_in(folder)):
        return None
    if naflex and not (card and "auto_map" in card):
        return TextSettings("unicode", "none", own=False)
    if name in ("GemmaTokenizer", "Siglip2Tokenizer"):
        # Both put rules of their own in place of the file's.
        return TextSettings("none" if name == "GemmaTokenizer" else "unicode", "none", own=False)
    lower, clean, _ = text_settings(read_normalizer((folder / JSON).read_text("utf-8")))
    return TextSettings(lower, clean, own=True)


def _sentencepiece_in(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARY_FILES if name != JSON)


def _token(value: Any) -> Any:
    if isinstance(value, dict):
        return cast(dict[str, Any], value).get("content")
    return value
