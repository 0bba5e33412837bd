"""`tokenizer.json`, the file of the package `tokenizers`, in place of a sentencepiece model.

What such a file does to a text before its vocabulary sees it has two parts: the rules of the
vocabulary itself, and the case and cleaning that a `TextProfile` states. Only the first is
run here; the second is read (`text_settings`), so that the profile stays the whole truth, and
written (`text_steps`).
"""

import base64
import json
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from siglip_jax.json_text import parsed
from siglip_jax.messages import reason
from siglip_jax.preprocessing.profiles import Clean, Lower
from siglip_jax.preprocessing.regex_bounds import check_regex

Step = dict[str, Any]

_BOUNDARY = "\u2581"
# What str.split() splits at.
_SPACES = (
    r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}"
    r"\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
)
_PUNCTUATION = r"[!-/:-@\[-`{-~]"
_SQUEEZE = ((_SPACES, " "), (r"\A ", ""), (r" \z", ""))


class TextSettings(NamedTuple):
    """What the tokenizer of a folder does with texts; `own` where no released class does it."""

    lower: Lower
    clean: Clean
    own: bool


def is_tokenizer_json(vocabulary: Path) -> bool:
    """Whether a vocabulary is a `tokenizer.json`, and no sentencepiece model."""
    with vocabulary.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


class Pieces(Protocol):
    """A vocabulary, by sentencepiece's names."""

    def GetPieceSize(self) -> int: ...
    def eos_id(self) -> int: ...
    def IdToPiece(self, id: int, /) -> str: ...
    def EncodeAsIds(self, text: str, /) -> list[int]: ...


def replace(what: str, by: str, *, regex: bool = False) -> Step:
    """A step that replaces a string, or what a regular expression of Oniguruma matches."""
    pattern = {"Regex" if regex else "String": what}
    return {"type": "Replace", "pattern": pattern, "content": by}


def text_steps(lower: Lower, clean: Clean) -> list[Step]:
    """What `preprocessing.text.clean_text` does, as steps of a normalizer.

    HTML entities, which "canonicalize" resolves, have no step and stay as they are.
    """
    steps: list[Step] = []
    if clean == "delete_punctuation":
        steps += [replace(_BOUNDARY, " ")]
    elif clean == "canonicalize":
        steps += [replace(q, "'") for q in "\u02bc\u2018\u2019\u201a\u201b"]
        steps += [replace(q, '"') for q in "\u201c\u201d\u201e\u201f"]
        steps += [{"type": "NFC"}, replace("_", " ")]
    if clean != "none":
        steps += [replace(_PUNCTUATION, "", regex=True)]
        steps += [replace(what, by, regex=True) for what, by in _SQUEEZE]
    if lower == "ascii":
        steps += [replace(letter, letter.lower()) for letter in string.ascii_uppercase]
    elif lower == "unicode":
        # The other step knows one letter at a time; at the end of a word Python writes another.
        steps += [
            replace(r"(?<=\p{L})\u03a3(?!\p{L})", "\u03c2", regex=True),
            {"type": "Lowercase"},
        ]
    return steps


def text_settings(normalizer: Step | None) -> tuple[Lower, Clean, list[Step]]:
    """What a normalizer does that is a text profile's to say, and the steps that are not.

    >>> text_settings({"type": "Lowercase"})
    ('unicode', 'none', [])
    """
    steps = _flat(normalizer)
    cleanings: tuple[Clean, ...] = ("delete_punctuation", "canonicalize", "none")
    for clean in cleanings:
        for lower in ("ascii", "unicode"):
            known = text_steps(lower, clean)
            if steps[: len(known)] == known:
                return lower, clean, steps[len(known) :]
    left = [step for step in steps if step.get("type") != "Lowercase"]
    for clean in cleanings:
        known = text_steps("none", clean)
        if left[: len(known)] == known:
            return "none" if left == steps else "unicode", clean, left[len(known) :]
    raise AssertionError("no step is known to begin with")


def read_normalizer(text: str) -> Step | None:
    """The normalizer of a `tokenizer.json`, without the megabytes of its vocabulary."""
    key = '"normalizer"'
    # Inside a string these quotation marks would be escaped.
    start = text.find(key)
    if start < 0:
        return None
    rest = text[start + len(key) : start + len(key) + (1 << 23)].lstrip().removeprefix(":").lstrip()
    try:
        return json.JSONDecoder().raw_decode(rest)[0]
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check_charsmaps(steps: Sequence[Step]) -> None:
    """Raises a ValueError where `tokenizers` would panic, and print pages about itself."""
    for step in steps:
        if step.get("type") == "Precompiled":
            data = base64.b64decode(step["precompiled_charsmap"], validate=True)
            size = int.from_bytes(data[:4], "little")
            if len(data) < 4 or size % 4 or 4 + size > len(data):
                raise ValueError("its precompiled_charsmap is damaged")
            data[4 + size :].decode()


def _regexes(value: Any) -> Iterator[str]:
    """The regular expressions of the steps in a list, to the bottom."""
    if isinstance(value, dict):
        if isinstance(value.get("Regex"), str):
            yield value["Regex"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _regexes(inner)


def _flat(step: Step | None) -> list[Step]:
    if not step:
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [inner for one in step["normalizers"] for inner in _flat(one)]


def ids_by_file(path: Path, texts: Sequence[str], *, length: int, pad: int) -> list[list[int]]:
    """What other libraries get from a `tokenizer.json`, padded and cut to `length`."""
    import tokenizers

    theirs: Any = tokenizers.Tokenizer.from_file(str(path))
    theirs.enable_truncation(length)
    theirs.enable_padding(length=length, pad_id=pad)
    return [theirs.encode(text).ids for text in texts]


class JsonPieces:
    """The vocabulary of a `tokenizer.json`, under sentencepiece's names.

    Args:
      text: the file.

    Raises:
      ValueError: if `tokenizers` cannot read it.
    """

    def __init__(self, text: str) -> None:
        import tokenizers

        try:
            plain: dict[str, Any] = parsed(text)
            *_, steps = text_settings(plain.get("normalizer"))
            plain["normalizer"] = {"type": "Sequence", "normalizers": steps} if steps else None
            plain["truncation"] = plain["padding"] = None
            _check_charsmaps(steps)
            for pattern in _regexes([steps, plain.get("pre_tokenizer")]):
                check_regex(pattern)
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(json.dumps(plain))
        except Exception as error:  # theirs is a plain Exception
            raise ValueError(reason(error)) from error
        except BaseException as error:
            if not _is_panic(error):
                raise
            raise ValueError(reason(error)) from error
        # A piece such as </s> in a text is text.
        self._tokenizer.encode_special_tokens = True
        ending: list[int] = self._tokenizer.encode("").ids
        names = (self._tokenizer.token_to_id(name) for name in ("<eos>", "</s>"))
        known = [id for id in names if id is not None]
        self._eos: int = (ending or known or [-1])[-1]

    def GetPieceSize(self) -> int:
        return self._tokenizer.get_vocab_size()

    def eos_id(self) -> int:
        return self._eos

    def IdToPiece(self, id: int, /) -> str:
        return self._tokenizer.id_to_token(id)

    def EncodeAsIds(self, text: str, /) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except BaseException as error:
            if not _is_panic(error):
                raise
            raise ValueError(reason(error)) from error


def _is_panic(error: BaseException) -> bool:
    """Whether it is Rust's, which is no Exception."""
    return type(error).__name__ == "PanicException"
