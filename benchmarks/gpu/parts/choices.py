"""Ways to execute the same towers, turn by turn: what `Execution` should choose here."""

import dataclasses
from typing import Any

from contestants import Contestant
from race import race
from results import Results
from sizes import FAST

# An option of `ours.Ours`, and of no model: this choice is the device's.
CONVOLVED = {"convolved": True}
# Other sequence lengths and head widths than the first case's, and a mask.
CASES = ("So400m/14-384", "B/16 texts", "B/16 NaFlex")


def run(results: Results) -> None:
    some = [way("as it is"), way("attention matmul", attention="matmul")]
    if results.platform == "tpu":
        some.append(way("attention xla", attention="xla"))
    every = [
        *some,
        Contestant("patches by convolution", "siglip_jax", dataclasses.asdict(FAST) | CONVOLVED),
        way("float32 weights", weights="float32"),
    ]
    first, *others = (
        dataclasses.replace(case, batches=case.batches[:1]) for case in results.scale.cases
    )
    if results.scale.rehearsal:
        every = every[-2:]
    first = dataclasses.replace(first, latency=False)
    race(results, [(first, every), *((case, some) for case in others if case.name in CASES)])


def way(name: str, **changes: Any) -> Contestant:
    execution = dataclasses.replace(FAST, **changes)
    return Contestant(name, "siglip_jax", dataclasses.asdict(execution))
