"""`POST /` and `/models/{id}`: what Hugging Face's clients send to an endpoint of their own."""

from typing import Any

import msgspec

from siglip_jax.serve.endpoints.classify import best, scored
from siglip_jax.serve.operation import Call, Operation, PlainFailure

# What transformers' pipeline puts labels into where no template is given.
_TEMPLATE = "This is a photo of {}."


class ZeroShotParameters(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What the image is scored against.

    Attributes:
      candidate_labels: texts.
      hypothesis_template: with {} for the label; "This is a photo of {}." unless given, as in
        transformers' pipeline.
    """

    candidate_labels: list[str]
    hypothesis_template: str = _TEMPLATE


class ZeroShot(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An image to score against labels.

    Attributes:
      inputs: the image: base64, a data URI or, where allowed, a URL.
      parameters: its labels.
      options: not used; `wait_for_model` and `use_cache` mean nothing here.
    """

    inputs: str
    parameters: ZeroShotParameters
    options: dict[str, Any] | None = None


class LabelScore(msgspec.Struct):
    """The probability that a label fits, whatever the other labels are."""

    label: str
    score: float


async def zero_shot(call: Call) -> list[LabelScore]:
    """All labels, best first."""
    asked: ZeroShot = call.body
    model = call.service.model(call.path.get("id"))
    labels = asked.parameters.candidate_labels
    scores, _ = await scored(
        call.service,
        model,
        [asked.inputs],
        ["inputs"],
        labels,
        [asked.parameters.hypothesis_template],
    )
    (ranked,) = best(scores, len(labels))
    return [LabelScore(each.label, each.score) for each in ranked]


OPERATIONS = tuple(
    Operation(
        method="POST",
        path=path,
        handle=zero_shot,
        summary="Hugging Face's zero-shot image classification",
        takes=ZeroShot,
        gives=list[LabelScore],
        fails=PlainFailure,
        of_images=True,
    )
    for path in ("/", "/models/{id:path}")
)
