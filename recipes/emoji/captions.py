"""Captions of a training picture.

The loader draws one of them at random, so that an entry that occurs twice is drawn
twice as often: three fifths of the entries are English, two thirds the bare name. Names in
six languages are at hand; two are taught, because a model of this size and a budget of an
hour learn two languages better than six.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable

from inventory import LANGUAGES, Emoji
from sameness import same_text

# {} is the name. Each emoji gets some of them, drawn by lot from its key.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": (
        "an emoji of {}",
        "a picture of {}",
        "a small drawing of {}",
        "an icon of {}",
        "this is {}",
        "{}, an emoji",
        "a photo of {}",
        "a cartoon of {}",
    ),
    "es": ("un emoji de {}", "una imagen de {}", "un dibujo pequeño de {}", "esto es {}"),
    "de": ("ein Emoji: {}", "ein Bild: {}", "eine kleine Zeichnung: {}", "das ist {}"),
    "fr": ("un emoji de {}", "une image de {}", "un petit dessin de {}", "voici {}"),
    "ja": ("{}の絵文字", "{}の絵", "{}の小さなイラスト", "これは{}"),
    "zh": ("{}的表情符号", "{}的图片", "{}的小图画", "这是{}"),
}
# Language -> entries per emoji.
TAUGHT = {"en": 12, "es": 8}


def unambiguous_aliases(emoji: Iterable[Emoji]) -> dict[str, tuple[str, ...]]:
    """Key -> the aliases that mean no other emoji.

    An alias that is another emoji's name, or alias, in any language, would teach a
    wrong caption, or a held-out one.
    """
    emoji = list(emoji)
    meant = defaultdict(set)
    for one in emoji:
        for name in (*one.names.values(), *one.aliases):
            meant[same_text(name)].add(one.key)
    return {
        one.key: tuple(
            alias
            for alias in one.aliases
            if meant[same_text(alias)] == {one.key}
            and len(alias) > 2
            and same_text(alias) != same_text(one.names["en"])
        )
        for one in emoji
    }


def captions(one: Emoji, aliases: tuple[str, ...], forbidden: set[str], seed: int) -> list[str]:
    """The weighted captions of one emoji, none of them in `forbidden`.

    Args:
      aliases: English names that mean only this emoji.
      forbidden: `same_text` of every caption that training must not hold.
    """
    draw = random.Random(f"{seed} {one.key}")
    texts = []
    for language, entries in TAUGHT.items():
        name, templates = one.names[language], TEMPLATES[language]
        others = [alias for alias in aliases if same_text(alias) not in forbidden][:2]
        others = others if language == "en" else []
        framed = entries // 3
        texts += [name] * (entries - framed - len(others)) + others
        filled = [*others[:1], *[name] * (framed - len(others[:1]))]
        texts += [
            template.format(text)
            for template, text in zip(draw.sample(templates, len(filled)), filled, strict=True)
        ]
    return [text for text in texts if same_text(text) not in forbidden]


def every_caption(one: Emoji, aliases: tuple[str, ...]) -> set[str]:
    """`same_text` of all that one emoji could be called: names, aliases, templates."""
    return {
        same_text(text)
        for language in LANGUAGES
        for name in (one.names[language], *(aliases if language == "en" else ()))
        for text in (name, *(template.format(name) for template in TEMPLATES[language]))
    }


def leaks(training: Iterable[list[str]], held_out: Iterable[set[str]]) -> Counter[str]:
    """Captions of training that also name something held out, with their counts."""
    hidden = set().union(*held_out)
    return Counter(text for texts in training for text in texts if same_text(text) in hidden)
