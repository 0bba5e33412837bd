"""What sentencepiece's NFKC needs besides its charsmap, as steps of a `tokenizer.json`.

`tokenizers` applies the charsmap to one grapheme or one character at a time and takes the
shortest entry, sentencepiece the longest anywhere: letters with loose marks (file names of
macOS, Vietnamese, Korean, half-width kana) come out otherwise. After an NFKC of its own there
is nothing left for which that matters. Two things are kept from it: marks in another than the
canonical order, which sentencepiece leaves in their order, and U+FF5E, which it leaves alone.
"""

import functools
import unicodedata

from siglip_jax.preprocessing.tokenizer_json import Step, replace

# Not characters, so that no text has them.
_ORDER, _WAVE = "\ufdd0", "\ufdd1"
# Latin, Greek and Cyrillic letters and their marks, Hebrew, Arabic, Thai.
_LETTERS = (*range(0xC0, 0x530), *range(0x591, 0x6EE), *range(0xE38, 0xE4C), *range(0x1E00, 0x2000))

NAMES = ("nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")


@functools.cache
def nfkc_steps() -> tuple[Step, ...]:
    """The steps to go before the charsmap of a normalization that `NAMES` has."""
    return (
        replace(_out_of_order(), _ORDER, regex=True),
        replace("\uff5e", _WAVE),
        {"type": "NFKC"},
        replace(_ORDER, ""),
        replace(_WAVE, "\uff5e"),
    )


def _out_of_order() -> str:
    """Matches between two marks, of which a letter may hold the first, that NFKC would exchange."""
    marks: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for code in _LETTERS:
        last = unicodedata.normalize("NFKD", chr(code))[-1]
        if number := unicodedata.combining(last):
            ends.setdefault(number, []).append(code)
        if number := unicodedata.combining(chr(code)):
            marks.setdefault(number, []).append(code)
    between: list[str] = []
    for number, group in sorted(marks.items()):
        if later := [code for other in ends if other > number for code in ends[other]]:
            between.append(f"(?<=[{_ranges(later)}])(?=[{_ranges(group)}])")
    return "|".join(between)


def _ranges(codes: list[int]) -> str:
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in runs)
