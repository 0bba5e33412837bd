"""What is measured on the held-out pictures, and what counts as right.

`protocol.json` names, for each evaluation, the pictures (a Parquet file and keys in it)
and the candidates (keys). A picture is given the best of the candidates' names in one
language; it is right if that is a name of the picture's own emoji or of one that cannot
be told from it, because it is drawn identically or has the same name.
"""

import dataclasses
from collections import defaultdict
from typing import Any

from captions import TAUGHT
from inventory import Emoji
from sameness import same_text
from split import COMBINATIONS, NAMES, TRAIN


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation in one language.

    Attributes:
      file: the Parquet file with the pictures.
      pictures: keys in it, n of them.
      captions: the candidates, each once.
      right: for each picture the places in `captions` that count as right; never empty.
    """

    file: str
    pictures: list[str]
    captions: list[str]
    right: list[list[int]]


def protocol(
    emoji: list[Emoji],
    places: dict[str, str],
    class_of: dict[str, str],
    twemoji: dict[str, str] | None = None,
) -> dict[str, Any]:
    """`protocol.json`.

    Args:
      emoji: all that have a picture.
      places: key -> split.
      class_of: key -> class of emoji that cannot be told apart.
      twemoji: the same for another artist's pictures; its keys are those that have one.
    """
    everything = [one.key for one in emoji]
    one_tone = [one.key for one in emoji if len(one.tones) == 1]
    untoned = [one.key for one in emoji if not one.tones]

    def of(split: str, keys: list[str]) -> list[str]:
        return [key for key in keys if places[key] == split]

    evaluations = {
        # As many captions as skin tones and roles make; and the names of all emoji.
        "unseen_combinations": (COMBINATIONS, of(COMBINATIONS, one_tone), one_tone),
        "unseen_combinations_among_all": (COMBINATIONS, of(COMBINATIONS, one_tone), everything),
        "unseen_names": (NAMES, of(NAMES, untoned), untoned),
        "unseen_names_among_all": (NAMES, of(NAMES, untoned), everything),
        "unseen_names_among_unseen": (NAMES, of(NAMES, untoned), of(NAMES, untoned)),
        "unseen_names_in_tones": (NAMES, of(NAMES, everything), everything),
        "seen": (TRAIN, of(TRAIN, everything), everything),
    }
    if twemoji is not None:
        for name, split, keys, candidates in (
            ("twemoji_seen", TRAIN, everything, everything),
            ("twemoji_seen_untoned", TRAIN, untoned, untoned),
            ("twemoji_unseen_combinations", COMBINATIONS, one_tone, one_tone),
            ("twemoji_unseen_names", NAMES, untoned, untoned),
        ):
            drawn = [key for key in of(split, keys) if key in twemoji]
            evaluations[name] = ("twemoji", drawn, candidates)
    return {
        "languages": list(TAUGHT),
        "names": {one.key: one.names for one in emoji},
        "classes": {"noto": _merged(class_of), "twemoji": _merged(twemoji or {})},
        "evaluations": {
            name: {"file": f"{file}.parquet", "pictures": pictures, "candidates": candidates}
            for name, (file, pictures, candidates) in evaluations.items()
        },
    }


def _merged(class_of: dict[str, str]) -> list[list[str]]:
    """Classes of more than one emoji."""
    members = defaultdict(list)
    for key, name in sorted(class_of.items()):
        members[name].append(key)
    return [keys for keys in members.values() if len(keys) > 1]


def evaluation(protocol: dict[str, Any], name: str, language: str = "en") -> Evaluation:
    """One evaluation of a protocol, with the texts filled in.

    Raises:
      ValueError: if the protocol has no such evaluation or language.
    """
    for what, given, known in (
        ("evaluation", name, list(protocol["evaluations"])),
        ("language", language, protocol["languages"]),
    ):
        if given not in known:
            raise ValueError(f"no {what} {given!r} in the protocol: it has {', '.join(known)}")
    part = protocol["evaluations"][name]
    artist = "twemoji" if part["file"].startswith("twemoji") else "noto"
    alike = {key: keys for keys in protocol["classes"][artist] for key in keys}
    names = protocol["names"]
    place: dict[str, int] = {}
    captions: list[str] = []
    for key in part["candidates"]:
        text = names[key][language]
        if same_text(text) not in place:
            place[same_text(text)] = len(captions)
            captions.append(text)
    right = []
    for key in part["pictures"]:
        mine = {place.get(same_text(names[one][language])) for one in alike.get(key, [key])}
        right.append(sorted(mine - {None}))
    return Evaluation(part["file"], part["pictures"], captions, right)
