"""Regular expressions of a `tokenizer.json`: whether a match can take for ever.

Oniguruma tries every way to match. Each choice of how often something is repeated, or which of
several alternatives it is, multiplies the ways; what is repeated and has choices itself, as in
`(a+)+`, has more ways than there is time for.
"""

# Ways to match at one place: two repetitions of any length in a row, and some small choices.
_MOST, _LENGTH = 1 << 26, 1 << 10
# Recursion, conditions, references to what a group matched.
_REFUSED_GROUPS = ("(?(", "(?&", "(?R", "(?~", "(?P", "(?{")
_REFUSED_ESCAPES = "gk123456789"


class HardError(ValueError):
    """An expression that may take for ever."""

    def __init__(self, pattern: str) -> None:
        short = pattern if len(pattern) < 60 else pattern[:57] + "..."
        super().__init__(
            f"its regular expression {short!r} may take for ever to match; expected one without "
            "repetitions inside repetitions"
        )


def check_regex(pattern: str) -> None:
    """Raises a HardError where a match of `pattern` may need more steps than there is time for.

    >>> check_regex(r"'s| ?\\p{L}+|\\s+(?!\\S)")
    >>> check_regex(r"(a+)+$")
    Traceback (most recent call last):
    siglip_jax.preprocessing.regex_bounds.HardError: its regular expression '(a+)+$' may take ...
    """
    ways, at = _alternatives(pattern, 0, 0)
    if at < len(pattern) or ways > _MOST:
        raise HardError(pattern)


def _alternatives(text: str, at: int, depth: int) -> tuple[int, int]:
    """Ways to match up to the end of a group, and where that is."""
    if depth > 20:
        raise HardError(text)
    total, ways = 0, 1
    while at < len(text) and text[at] != ")":
        if text[at] == "|":
            total, ways, at = total + ways, 1, at + 1
            continue
        own, at = _one(text, at, depth)
        least, most, at = _repeated(text, at)
        if most != least:
            # Of something that has one way, any number is as many ways as there are numbers.
            if own > 1 and most > 1:
                raise HardError(text)
            ways *= own + most - least if most > 1 else own + 1
        elif own > 1:
            ways *= own ** min(least, 64)
        ways = min(ways, _MOST * 2)
    return total + ways, at


def _one(text: str, at: int, depth: int) -> tuple[int, int]:
    """Ways to match one thing that may be repeated, and where it ends."""
    if text[at] == "(":
        if text.startswith(_REFUSED_GROUPS, at):
            raise HardError(text)
        at += 1
        if text.startswith("?", at):
            # Flags, a name, or what kind of look around it is.
            while at < len(text) and text[at] not in ":=!>)":
                at += 1
            if text[at : at + 1] == ")":
                return 1, at + 1
            at += 1
        ways, at = _alternatives(text, at, depth + 1)
        return ways, at + 1
    if text[at] == "[":
        return 1, _class_end(text, at)
    if text[at] == "\\":
        if text[at + 1 : at + 2] in tuple(_REFUSED_ESCAPES):
            raise HardError(text)
        if text[at + 2 : at + 3] == "{" and text[at + 1] in "pPxuo":
            return 1, text.find("}", at) + 1 or len(text)
        return 1, at + 2
    return 1, at + 1


def _class_end(text: str, at: int) -> int:
    depth, start = 0, at
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "[":
            depth += 1
        elif text[at] == "]" and at > start + 1 + text.startswith("^", start + 1):
            depth -= 1
        at += 1
        if depth == 0:
            return at
    return at


def _repeated(text: str, at: int) -> tuple[int, int, int]:
    """The least and most times that what came is there, and where the sign for it ends."""
    least = most = 1
    while at < len(text):
        if text[at] == "{" and "}" in text[at:]:
            end = text.index("}", at)
            low, comma, high = text[at + 1 : end].partition(",")
            if not (low or high) or not (low + high).isdigit():
                break  # letters, not a number of times
            own = int(low or 0), int(high or (_LENGTH if comma else low))
            at = end + 1
        elif text[at] in "?*+":
            own = {"?": (0, 1), "*": (0, _LENGTH), "+": (1, _LENGTH)}[text[at]]
            at += 1
        else:
            break
        if text[at : at + 1] in ("?", "+"):  # reluctant, possessive
            at += 1
        if most > 1 and own[1] > 1:
            raise HardError(text)
        least, most = least * own[0], most * own[1]
    return least, most, at
