"""What a model can do, measured with the definitions of big_vision and CLIP_benchmark.

Functions of embeddings, and tasks that are made of what is said of images and then run on their
embeddings: `run_task`.
"""

from siglip_jax.evaluation.caption_tasks import CaptionChoice, Multilingual, Retrieval
from siglip_jax.evaluation.choices import caption_choice
from siglip_jax.evaluation.class_names import canonicalize, class_texts
from siglip_jax.evaluation.class_tasks import MultiLabel, ZeroShot
from siglip_jax.evaluation.classification import (
    class_embeddings,
    mean_per_class_recall,
    nearest_classes,
    zero_shot_accuracy,
)
from siglip_jax.evaluation.few_shot import few_shot_accuracy
from siglip_jax.evaluation.imagenet import IMAGENET_NAMES, imagenet_classes, imagenet_labels
from siglip_jax.evaluation.labels import class_labels
from siglip_jax.evaluation.languages import mean_over, recall_by_language
from siglip_jax.evaluation.match_ranks import Ranks, ranks
from siglip_jax.evaluation.precision import average_precision
from siglip_jax.evaluation.probe_tasks import FewShot, LinearProbe, NeighbourProbe
from siglip_jax.evaluation.probes import Probe, linear_probe, neighbour_probe
from siglip_jax.evaluation.retrieval import recall
from siglip_jax.evaluation.task import Images, Measured, Task, run_task
from siglip_jax.evaluation.templates import CLASS_NAME_ONLY, CLIP_BEST, CLIP_PAPER, TEMPLATES

__all__ = [
    "CLASS_NAME_ONLY",
    "CLIP_BEST",
    "CLIP_PAPER",
    "IMAGENET_NAMES",
    "TEMPLATES",
    "CaptionChoice",
    "FewShot",
    "Images",
    "LinearProbe",
    "Measured",
    "MultiLabel",
    "Multilingual",
    "NeighbourProbe",
    "Probe",
    "Ranks",
    "Retrieval",
    "Task",
    "ZeroShot",
    "average_precision",
    "canonicalize",
    "caption_choice",
    "class_embeddings",
    "class_labels",
    "class_texts",
    "few_shot_accuracy",
    "imagenet_classes",
    "imagenet_labels",
    "linear_probe",
    "mean_over",
    "mean_per_class_recall",
    "nearest_classes",
    "neighbour_probe",
    "ranks",
    "recall",
    "recall_by_language",
    "run_task",
    "zero_shot_accuracy",
]
