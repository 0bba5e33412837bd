"""From strings to the fixed-length ids that a text tower takes.

Follows big_vision `pp/ops_text.py` (`tokenize`, SigLIP) and
`pp/proj/paligemma/ops.py` (`lower` and `tok`, SigLIP 2) at 0127fb6, with
sentencepiece itself in place of tensorflow_text, or the package `tokenizers` where there
is a `tokenizer.json` alone. Two cleanings are other systems':

* "delete_punctuation", transformers' `SiglipTokenizer`: deletes ASCII punctuation and
  squeezes whitespace. (It also encodes "<unk>" in front of each text and drops its
  pieces again, which changes nothing with vocabularies that normalise whitespace, as
  SigLIP's do.) A literal "</s>" or "<unk>" in a text is not taken for a special token.
* "canonicalize", open_clip: mends the text, resolves HTML entities twice, makes `_`
  a space, deletes ASCII punctuation, squeezes whitespace. open_clip mends with
  ftfy; here curly quotes become straight and characters are composed (NFC), and
  mojibake, ligatures and full-width letters stay as they are.
* "whitespace", open_clip's for tokenizers that ask for nothing else: the same without
  touching `_` and punctuation.
"""

import functools
import html
import os
import string
import unicodedata
import warnings
from collections.abc import Sequence

import numpy as np
import sentencepiece

from siglip_jax.checkpoints import VOCABULARIES
from siglip_jax.messages import reason
from siglip_jax.preprocessing.profiles import TextProfile
from siglip_jax.preprocessing.tokenizer_json import JsonPieces, Pieces
from siglip_jax.regular_file import read_regular

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_STRAIGHT_QUOTES = str.maketrans(
    dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)
_BOUNDARY = "\u2581"  # Sentencepiece's mark for a space.


def clean_text(text: str, profile: TextProfile) -> str:
    """`text` as it goes into sentencepiece.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.preprocessing.profiles import profile_for
    >>> model = find("siglip_b16_224")
    >>> clean_text("Top-10 CAFÉS", profile_for(model).text)
    'top-10 cafÉs'
    >>> clean_text("Top-10  caf&eacute;s", profile_for(model, "open_clip").text)
    'top10 cafés'
    """
    if profile.clean == "delete_punctuation":
        text = " ".join(text.replace(_BOUNDARY, " ").translate(_NO_PUNCTUATION).split())
    elif profile.clean in ("canonicalize", "whitespace"):
        text = unicodedata.normalize("NFC", text.translate(_STRAIGHT_QUOTES))
        text = html.unescape(html.unescape(text))
        if profile.clean == "canonicalize":
            text = text.replace("_", " ").translate(_NO_PUNCTUATION)
        text = " ".join(text.split())
    if profile.lower == "ascii":
        # big_vision: `tf.strings.lower` leaves every letter but A to Z alone.
        return text.translate(_ASCII_LOWER)
    return text.lower() if profile.lower == "unicode" else text


class Tokenizer:
    """A vocabulary with the rules of a text profile.

    Args:
      model: path or bytes of a sentencepiece model file, or of a `tokenizer.json`, of which
        case and cleaning are the profile's.
      profile: cleaning, context length, padding, size of the embedding.

    Raises:
      ValueError: if the file cannot be read, is neither, or is not the vocabulary that the
        profile names.

    >>> import siglip_jax
    >>> model = siglip_jax.load("siglip_emoji")
    >>> tokenizer = Tokenizer(model.vocabulary, model.profile.text)
    >>> ids = tokenizer.encode(["brown circle", "a red heart"])
    >>> ids.shape, ids.dtype, ids[0, -1] == model.profile.text.pad
    ((2, 20), dtype('int32'), np.True_)
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, profile: TextProfile) -> None:
        if isinstance(model, bytes):
            data, name = model, "vocabulary bytes"
        else:
            name = os.fspath(model)
            try:
                data = read_regular(model, _MOST)
            except (OSError, ValueError) as error:
                raise ValueError(f"{name}: vocabulary cannot be read: {reason(error)}") from error
        self.profile = profile
        try:
            pieces = _pieces(data)
        except ValueError as error:
            raise ValueError(
                f"{name}: not a sentencepiece model; nor, as it begins, a tokenizer.json: {error}"
            ) from error
        if pieces is None:
            raise ValueError(
                f"{name}: not a sentencepiece model; expected a file such as spiece.model, "
                "tokenizer.model or tokenizer.json"
            )
        self._pieces = pieces
        self._check_vocabulary(name)

    def _check_vocabulary(self, name: str) -> None:
        found = self._pieces.GetPieceSize()
        needed = VOCABULARIES.get(self.profile.vocabulary or "")
        if needed is not None and found not in (needed.pieces, needed.rows):
            same = [v.name for v in VOCABULARIES.values() if found in (v.pieces, v.rows)]
            looks = f", which looks like {same[0]}" if same else ""
            raise ValueError(
                f"{name}: wrong vocabulary: it has {found:,} pieces{looks}; the model needs "
                f"{needed.name} with {needed.pieces:,}: {needed.hub[1]} of {needed.hub[0]} "
                f"or {needed.url}"
            )
        if self._pieces.eos_id() != self.profile.eos:
            # Llama's vocabulary has as many pieces as c4_en, so that the count is not enough.
            raise ValueError(
                f"{name}: wrong vocabulary: its end-of-text id is {self._pieces.eos_id()}, "
                f"the model needs {self.profile.eos}"
            )

    def encode(self, texts: str | Sequence[str], *, warn: bool = True) -> np.ndarray:
        """Ids of one text or several, (n, length) int32, all of the context length.

        A text longer than the context keeps its first `length - 1` ids and the
        end-of-text id; one warning counts such texts, unless `warn` is False.

        Raises:
          ValueError: if something is not a string, or a text contains a piece
            beyond the model's token embedding.
        """
        ids, too_long = self.encode_counting(texts)
        if too_long and warn:
            warnings.warn(
                f"{too_long} of {len(ids)} texts are longer than {self.profile.length} tokens and "
                "were cut",
                stacklevel=2,
            )
        return ids

    def encode_counting(self, texts: str | Sequence[str]) -> tuple[np.ndarray, int]:
        """As `encode`, without a warning, and how many of the texts were cut."""
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, bytes) or not isinstance(texts, Sequence | np.ndarray):
            raise ValueError(f"expected a string or a list of strings, got {type(texts).__name__}")
        length, eos = self.profile.length, self.profile.eos
        ids = np.full((len(texts), length), self.profile.pad, np.int32)
        too_long = 0
        for row, text in enumerate(texts):
            tokens = [*self._tokens(row, text), eos]
            if len(tokens) > length:
                too_long += 1
                tokens = [*tokens[: length - 1], eos]
            ids[row, : len(tokens)] = tokens
        return ids, too_long

    def _tokens(self, row: int, text: str) -> list[int]:
        if not isinstance(text, str):
            raise ValueError(f"text {row}: expected a string, got {type(text).__name__}: {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text {row}: not valid Unicode: {text!r}") from error
        tokens = self._pieces.EncodeAsIds(clean_text(text, self.profile))
        if tokens and max(tokens) >= self.profile.rows:
            worst = max(tokens)
            raise ValueError(
                f"text {row} ({text!r}): piece {self._pieces.IdToPiece(worst)!r} has id {worst}, "
                f"but the model's token embedding has {self.profile.rows} rows; remove it"
            )
        return tokens


_MOST = 64 << 20  # bytes; Gemma's tokenizer.json has half of it


# A command checks a vocabulary before it reads the weights, and uses it after.
@functools.lru_cache(maxsize=1)
def _pieces(data: bytes) -> Pieces | None:
    if data.lstrip().startswith(b"{"):
        return JsonPieces(data.decode())
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(data)
        return pieces if pieces.GetPieceSize() > 0 else None
    except Exception:
        # Sentencepiece quotes a line of its own source and nothing that helps.
        return None
