"""The training step beside open_clip's: bfloat16 matmuls, float32 weights, AdamW."""

from contestants import Contestant
from race import race
from results import Results

OURS = Contestant("siglip_jax", "siglip_jax", {"dtype": "bfloat16", "text_dtype": "bfloat16"})
THEIRS = Contestant("open_clip", "open_clip")


def run(results: Results) -> None:
    race(results, [(results.scale.training, (OURS, THEIRS))], compare=True)
