"""Tokenizer files as transformers' `AutoTokenizer` reads them, which open_clip uses too.

The sentencepiece file itself is copied; transformers 5 builds what it needs from it.
"""

import shutil
from pathlib import Path
from typing import Any, cast

from .json_file import read_settings, write_json

CONFIG = "tokenizer_config.json"


def write(
    folder: Path, vocabulary: Path, pad: int, length: int, processor: str | None = None
) -> None:
    """Writes `tokenizer_config.json` and the vocabulary.

    Args:
      folder: where to.
      vocabulary: the sentencepiece file.
      pad: 1 for SigLIP's tokenizer, which pads with the end of text, 0 for Gemma's.
      length: context length.
      processor: the processor class that the tokenizer is a part of.
    """
    card: dict[str, Any] = {
        "model_max_length": length,
        "padding_side": "right",
        # A mask would hide the padding from the model, which was trained to see it.
        "model_input_names": ["input_ids"],
        "clean_up_tokenization_spaces": False,
    }
    if pad == 1:
        name = "spiece.model"
        card |= {
            "tokenizer_class": "SiglipTokenizer",
            "do_lower_case": True,
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
            "sp_model_kwargs": {},
        }
    else:
        name = "tokenizer.model"
        card |= {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": False,
            "add_eos_token": True,
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        }
    if processor is not None:
        card["processor_class"] = processor
    write_json(folder / CONFIG, card)
    shutil.copyfile(vocabulary, folder / name)


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


def _token(value: Any) -> Any:
    if isinstance(value, dict):
        return cast(dict[str, Any], value).get("content")
    return value
