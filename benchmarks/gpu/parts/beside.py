"""Beside compiled timm, open_clip and transformers, on the same weights, turn by turn."""

import dataclasses

from contestants import Contestant
from race import race
from results import Results
from sizes import FAST, Case

OURS = Contestant("siglip_jax", "siglip_jax", dataclasses.asdict(FAST))
# Cases of images in which open_clip takes part: its image tower is timm's.
_WITH_OPEN_CLIP = 2


def run(results: Results) -> None:
    images = [case for case in results.scale.cases if case.tower == "images"]
    both = images[:_WITH_OPEN_CLIP]
    field = [(case, contestants(case, case in both)) for case in results.scale.cases]
    race(results, field, compare=True, workers=results.scale.workers)


def contestants(case: Case, open_clip: bool) -> list[Contestant]:
    if case.tower == "texts":
        names = ["open_clip", "transformers"]  # timm has image towers only
    else:
        names = ["timm", *(["open_clip"] if open_clip else []), "transformers"]
    return [OURS, *(Contestant(name, name) for name in names)]
