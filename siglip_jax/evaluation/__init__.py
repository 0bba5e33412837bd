"""What a model can do, measured with big_vision's definitions."""

from siglip_jax.evaluation.class_names import canonicalize, class_texts
from siglip_jax.evaluation.classification import class_embeddings, zero_shot_accuracy
from siglip_jax.evaluation.match_ranks import Ranks, ranks
from siglip_jax.evaluation.retrieval import recall
from siglip_jax.evaluation.templates import CLASS_NAME_ONLY, CLIP_BEST, CLIP_PAPER, TEMPLATES

__all__ = [
    "CLASS_NAME_ONLY",
    "CLIP_BEST",
    "CLIP_PAPER",
    "TEMPLATES",
    "Ranks",
    "canonicalize",
    "class_embeddings",
    "class_texts",
    "ranks",
    "recall",
    "zero_shot_accuracy",
]
