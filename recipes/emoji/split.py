"""Which emoji are held out of training, and why.

* `names`: whole emoji that training never shows, in any tone, gender or direction.
* `combinations`: a role in one skin tone that training never shows together, in any
  gender or direction; the role is seen in other tones, and the tone on other roles.
"""

import random
from collections import defaultdict

from inventory import TONE_NAMES, Emoji
from sameness import classes

SEED = 2026
UNSEEN_NAMES = 200
UNSEEN_COMBINATIONS = 320
TRAIN, NAMES, COMBINATIONS = "train", "heldout_names", "heldout_combinations"


def split(
    emoji: list[Emoji],
    class_of: dict[str, str],
    *,
    names: int = UNSEEN_NAMES,
    combinations: int = UNSEEN_COMBINATIONS,
    seed: int = SEED,
) -> dict[str, str]:
    """Key -> `TRAIN`, `NAMES` or `COMBINATIONS`.

    Args:
      emoji: all that have a picture.
      class_of: key -> class of emoji that cannot be told apart, which stay together.
      names: about how many emoji to hold out, not counting their skin tones.
      combinations: how many emoji to hold out at least.

    Raises:
      ValueError: if there are too few roles for that many combinations.
    """
    unit_of = _units(emoji, class_of)
    units = defaultdict(list)
    for one in emoji:
        units[unit_of[one.key]].append(one)
    # Some couples mix two tones, so that no tone is unseen on them.
    plain = {unit: ones for unit, ones in units.items() if max(len(e.tones) for e in ones) < 2}

    places = dict.fromkeys((one.key for one in emoji), TRAIN)
    shuffle = random.Random(seed)
    for unit in _unseen_units(plain, names, shuffle):
        places.update((one.key, NAMES) for one in plain.pop(unit))
    places.update(
        (one.key, COMBINATIONS)
        for one in _unseen_combinations(plain, class_of, combinations, shuffle)
    )
    return places


def _units(emoji: list[Emoji], class_of: dict[str, str]) -> dict[str, str]:
    """Key -> unit, of emoji that are never on both sides of a split of names."""
    alike = defaultdict(list)
    for one in emoji:
        for trait in (("role", one.role), ("concept", one.concept), ("class", class_of[one.key])):
            alike[trait].append(one.key)
    return classes(alike.values())


def _untoned(ones: list[Emoji]) -> int:
    return sum(not one.tones for one in ones)


def _unseen_units(units: dict[str, list[Emoji]], names: int, shuffle: random.Random) -> list[str]:
    """Units that hold about `names` emoji, each group in proportion to its size."""
    groups = defaultdict(list)
    for unit, ones in units.items():
        groups[ones[0].group].append(unit)
    total = sum(_untoned(ones) for ones in units.values())
    chosen = []
    for _, members in sorted(groups.items()):
        share = names * sum(_untoned(units[unit]) for unit in members) / total
        held = 0
        for unit in shuffle.sample(sorted(members), len(members)):
            if held + _untoned(units[unit]) / 2 > share:
                break
            chosen.append(unit)
            held += _untoned(units[unit])
    return chosen


def _unseen_combinations(
    units: dict[str, list[Emoji]],
    class_of: dict[str, str],
    combinations: int,
    shuffle: random.Random,
) -> list[Emoji]:
    """One tone of every role; then a second one of some, until there are enough."""
    roles = {}
    for unit, ones in sorted(units.items()):
        in_tone = [[one for one in ones if one.tones == (tone,)] for tone in range(len(TONE_NAMES))]
        seen = [{class_of[one.key] for one in tone} for tone in in_tone]
        # The font draws a snowboarder alike in all tones.
        if all(seen) and len(set.union(*seen)) == sum(map(len, seen)):
            roles[unit] = in_tone
    order = shuffle.sample(sorted(roles), len(roles))
    held: list[Emoji] = []
    for turn in range(2):
        for place, unit in enumerate(order):
            if turn and len(held) >= combinations:
                return held
            # Tones in turn, so that each is held out equally often.
            held += roles[unit][(place + 2 * turn) % len(TONE_NAMES)]
    if len(held) < combinations:
        raise ValueError(
            f"expected at least {combinations} combinations of role and skin tone to hold "
            f"out, but {len(roles)} roles give {len(held)}; hold out fewer"
        )
    return held
