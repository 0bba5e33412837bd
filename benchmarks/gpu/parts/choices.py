"""Ways to execute the same towers, turn by turn: what `Execution` should choose here."""

import dataclasses
from typing import Any

from contestants import Contestant
from race import race
from results import Results
from sizes import FAST

# Other sequence lengths and head widths than the first case's, and a mask.
CASES = ("B/16 NaFlex", "So400m/14-384", "B/16-512")


def run(results: Results) -> None:
    attentions = ["matmul", "xla"]
    if results.platform == "gpu":
        attentions.append("cudnn")
    else:
        results.skipped("attention cudnn", "it needs a GPU")
    some = [way(f"attention {each}", attention=each) for each in attentions]
    every = [
        *some,
        way("attention einsum", attention="einsum"),
        way("scan", scan_image=True, scan_text=True),
        way("float32 weights", weights="float32"),
    ]
    first, *others = (
        dataclasses.replace(case, batches=case.batches[:1]) for case in results.scale.cases
    )
    if results.scale.rehearsal:
        every = every[-2:]
    race(results, [(first, every), *((case, some) for case in others if case.name in CASES)])


def way(name: str, **changes: Any) -> Contestant:
    execution = dataclasses.replace(FAST, **changes)
    return Contestant(name, "siglip_jax", dataclasses.asdict(execution))
