"""Which emoji there are, what they are called, and which belong together.

Names come from the `emoji` package: fully qualified sequences only, with names in six
languages. A name such as `:woman_firefighter_medium-dark_skin_tone:` becomes "woman
firefighter medium-dark skin tone": a skin tone is the same words in every English name.
"""

import dataclasses
import re

import emoji
from emoji import unicode_codes

LANGUAGES = ("en", "es", "de", "fr", "ja", "zh")

# The five modifiers of UTS 51, lightest first.
TONES = {"\U0001f3fb": 0, "\U0001f3fc": 1, "\U0001f3fd": 2, "\U0001f3fe": 3, "\U0001f3ff": 4}
TONE_NAMES = ("light", "medium-light", "medium", "medium-dark", "dark")

_STRAIGHT = str.maketrans({"\u2019": "'", "\u201c": '"', "\u201d": '"'})
_FULLY_QUALIFIED = 2
_JOINER, _PRESENTATION, _RIGHT_ARROW = "\u200d", "\ufe0f", "\u27a1"
_GENDER_SIGNS = {"\u2640": "woman", "\u2642": "man"}
_PERSON = "\U0001f9d1"
_ADULTS = {"\U0001f469": "woman", "\U0001f468": "man", _PERSON: "person"}
_TONE_WORDS = re.compile(r" (light|medium-light|medium|medium-dark|dark) skin tone")


@dataclasses.dataclass(frozen=True)
class Emoji:
    """One emoji.

    Attributes:
      text: the emoji itself.
      key: its code points in lower-case hexadecimal, joined by "-".
      names: language -> name.
      aliases: other English names.
      concept: English name without skin tones.
      role: what is left of the sequence without tone, gender and direction: the same
        for every firefighter. Roles are held out as a whole.
      gender: "woman", "man", "person" where a role has genders, else "".
      tones: places in `TONE_NAMES`; two for some couples, none for most emoji.
      group: "person" (roles that come in tones), "flag" or "thing".
    """

    text: str
    key: str
    names: dict[str, str]
    aliases: tuple[str, ...]
    concept: str
    role: str
    gender: str
    tones: tuple[int, ...]
    group: str


def key_of(text: str) -> str:
    """
    >>> key_of("❤️")
    '2764-fe0f'
    """
    return "-".join(f"{ord(char):04x}" for char in text)


def readable(name: str) -> str:
    """A name of the `emoji` package as words.

    >>> readable(":woman_firefighter_medium-dark_skin_tone:")
    'woman firefighter medium-dark skin tone'
    """
    words = name.strip(":").translate(_STRAIGHT).replace("_", " ").replace(",", ", ")
    return " ".join(words.split())


def role_and_gender(text: str) -> tuple[str, str]:
    """The sequence without tone, gender and direction, and the gender.

    >>> role_and_gender("👩🏽‍🚒"), role_and_gender("🏃🏽‍♂️‍➡️"), role_and_gender("🐈")
    (('🧑\u200d🚒', 'woman'), ('🏃', 'man'), ('🐈', ''))
    """
    bare = "".join(char for char in text if char not in TONES and char != _PRESENTATION)
    parts = [part for part in bare.split(_JOINER) if part != _RIGHT_ARROW]
    for sign, gender in _GENDER_SIGNS.items():
        if len(parts) > 1 and sign in parts:
            return _JOINER.join(part for part in parts if part != sign), gender
    # A couple or a family is more than an adult with an attribute.
    if len(parts) == 2 and parts[0] in _ADULTS:
        return _JOINER.join((_PERSON, parts[1])), _ADULTS[parts[0]]
    return _JOINER.join(parts), ""


def is_flag(text: str) -> bool:
    """Flags of regions: two regional indicators, or a black flag with tags."""
    return "\U0001f1e6" <= text[0] <= "\U0001f1ff" or "\U000e007f" in text


def inventory() -> list[Emoji]:
    """All fully qualified emoji, sorted by key."""
    for language in LANGUAGES:
        unicode_codes.load_from_json(language)
    found = {
        text: entry
        for text, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == _FULLY_QUALIFIED
    }
    toned_roles = {role_and_gender(text)[0] for text in found if set(text) & TONES.keys()}
    return sorted(
        (_emoji(text, entry, toned_roles) for text, entry in found.items()),
        key=lambda one: one.key,
    )


def _emoji(text: str, entry: dict, toned_roles: set[str]) -> Emoji:
    names = {language: readable(entry[language]) for language in LANGUAGES}
    aliases = [readable(alias) for alias in entry.get("alias", ())]
    role, gender = role_and_gender(text)
    group = "flag" if is_flag(text) else "person" if role in toned_roles else "thing"
    if group == "flag":
        # "Jordan" alone is a person as well.
        aliases.append(names["en"])
        names["en"] = f"{names['en']} flag"
    return Emoji(
        text=text,
        key=key_of(text),
        names=names,
        aliases=tuple(dict.fromkeys(aliases)),
        concept=_TONE_WORDS.sub("", names["en"]),
        role=role,
        gender=gender,
        tones=tuple(TONES[char] for char in text if char in TONES),
        group=group,
    )
