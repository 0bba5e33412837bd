"""`POST /v1/classify`: images and labels in, sigmoid probabilities out."""

import base64
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from siglip_jax.calibration import Calibration
from siglip_jax.messages import reason
from siglip_jax.scoring.prompts import PLAIN, check_labels, check_templates
from siglip_jax.scoring.scores import LabelScore, Scores
from siglip_jax.serve.body import grouped
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.operation import Call, Operation
from siglip_jax.serve.served_model import ServedModel
from siglip_jax.serve.service import Service

Images = str | list[str]


class Classify(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Images to score against labels.

    Attributes:
      labels: texts.
      input: an image, or a list of them, each a data URI, base64 or, where allowed, a URL.
      image: another name of `input`.
      model: by its name; the first of the service unless given.
      templates: prompts with {} for the label, whose embeddings are averaged.
      top: how many labels to answer, the best; all unless given.
      calibration: true for calibrated probabilities, which the service must have for these
        labels and templates; "auto" for these where it has them.
      user: not used.
    """

    labels: list[str]
    input: Images | None = None
    image: Images | None = None
    model: str | None = None
    templates: list[str] | None = None
    top: Annotated[int, msgspec.Meta(ge=1)] | None = None
    calibration: bool | Literal["auto"] = False
    user: str | None = None


class Score(msgspec.Struct, omit_defaults=True):
    """One label of an image.

    Attributes:
      label: as given.
      score: the probability that it fits, whatever the other labels are.
      logit: of the model; of that probability, unless it is calibrated.
      threshold: the probability from which the label is accepted, where a calibration has one.
      accepted: it reaches the threshold; if none of an image does, it is none of these.
    """

    label: str
    score: float
    logit: float
    threshold: float | None = None
    accepted: bool | None = None


class Classification(msgspec.Struct, kw_only=True):
    """One image: its labels, best first."""

    index: int
    object: str = "classification"
    scores: list[Score]


class Usage(msgspec.Struct):
    """What was computed. `label_cache` is "hit" where the labels had been embedded before."""

    images: int
    texts: int
    label_cache: str


class Classified(msgspec.Struct, kw_only=True):
    """The answer. `calibration` is the method, where probabilities are calibrated."""

    object: str = "list"
    data: list[Classification]
    model: str
    usage: Usage
    calibration: str | None = None


async def classify(call: Call) -> Classified:
    """Scores of every image with every label."""
    asked: Classify = call.body
    model = call.service.model(asked.model)
    values, name = _images(asked)
    one = isinstance(asked.input or asked.image, str)
    params = [name] if one else [f"{name}[{i}]" for i in range(len(values))]
    top = min(asked.top or len(asked.labels), len(asked.labels))
    if top * len(values) > call.service.limits.scores:
        raise ApiError(
            400,
            f"{len(values):,} images with {top:,} labels each are more than "
            f"{call.service.limits.scores:,} scores in an answer; give top",
            param="top",
        )
    calibration = _calibration(asked, model)
    # A calibration has an order of its own, and the answer is ranked.
    labels = asked.labels if calibration is None else calibration.labels
    scores, usage = await scored(
        call.service, model, values, params, labels, asked.templates or PLAIN
    )
    if calibration is not None:
        scores = scores.calibrated(calibration)
    return Classified(
        data=[Classification(index=i, scores=ranked) for i, ranked in enumerate(best(scores, top))],
        model=model.name,
        usage=usage,
        calibration=None if calibration is None else calibration.method,
    )


def _calibration(asked: Classify, model: ServedModel) -> Calibration | None:
    """That of the labels and templates asked for.

    Raises:
      ApiError: 400 if it was asked for and there is none.
    """
    if asked.calibration is False:
        return None
    try:
        return model.calibration(asked.labels, asked.templates or PLAIN)
    except ValueError as error:
        if asked.calibration == "auto":
            return None
        raise ApiError(400, f"calibration: {error}", param="calibration") from None


async def scored(
    service: Service,
    model: ServedModel,
    values: Sequence[str | bytes],
    params: Sequence[str],
    labels: Sequence[str],
    templates: Sequence[str],
) -> tuple[Scores, Usage]:
    """Scores of images, by what stands for them in a request.

    Raises:
      ApiError: 400 that names the field; 429.
    """
    checked, prompts = _checked(service, labels, templates)
    files = await service.images(values, params)
    ztxt, found = await model.embed_labels(checked, prompts)
    zimg = await model.embed_images(files, params)
    logits = await model.logits(zimg, ztxt)
    return Scores(logits, checked), Usage(len(files), len(checked) * len(prompts), found)


def best(scores: Scores, top: int) -> list[list[Score]]:
    """The `top` labels of every image, best first."""
    limits: dict[str, float] = {}
    if scores.calibration is not None and scores.calibration.thresholds is not None:
        limits = dict(zip(scores.labels, scores.calibration.thresholds.tolist(), strict=True))
    return [[_score(hit, limits.get(hit.label)) for hit in ranked] for ranked in scores.top(top)]


def _score(hit: LabelScore, threshold: float | None) -> Score:
    if threshold is None:
        return Score(hit.label, hit.probability, hit.logit)
    accepted = hit.probability >= threshold
    # JSON has no infinity, which means that a label is never accepted.
    shown = threshold if math.isfinite(threshold) else None
    return Score(hit.label, hit.probability, hit.logit, shown, accepted)


def _images(asked: Classify) -> tuple[list[str], str]:
    if asked.input is not None and asked.image is not None:
        raise ApiError(400, "give the images as input or as image, not both", param="image")
    name = "image" if asked.image is not None else "input"
    value = asked.image if asked.image is not None else asked.input
    if value is None:
        raise ApiError(400, "the field 'input' is missing: an image, or a list", param="input")
    values = [value] if isinstance(value, str) else value
    if not values:
        raise ApiError(400, f"{name}: the list is empty; give at least one image", param=name)
    return values, name


def _checked(
    service: Service, labels: Sequence[str], templates: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    most = service.limits.labels
    if len(labels) > most:
        raise ApiError(
            400, f"labels: {len(labels):,} labels; at most {most:,} are taken", param="labels"
        )
    if len(labels) * len(templates) > service.limits.texts:
        raise ApiError(
            400,
            f"{len(labels):,} labels in {len(templates):,} templates are more than "
            f"{service.limits.texts:,} texts",
            param="templates",
        )
    checked = _or_400("labels", check_labels, labels)
    return checked, _or_400("templates", check_templates, templates)


def _or_400(param: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ApiError(400, reason(error), param=param) from None


def _of_form(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A form as JSON would say it: files are images, `labels` and `templates` may repeat."""
    made: dict[str, Any] = {}
    for name, given in grouped(fields):
        values = [
            each if isinstance(each, str) else base64.b64encode(each).decode() for each in given
        ]
        key = {"file": "input", "files": "input", "image": "input", "images": "input"}.get(
            name.removesuffix("[]"), name.removesuffix("[]")
        )
        if key in ("labels", "templates", "input"):
            made.setdefault(key, []).extend(values)
        elif key == "top" and len(values) == 1 and str(values[0]).isdigit():
            made[key] = int(values[0])
        elif len(values) > 1:
            raise ApiError(400, f"the form names {name!r} twice", param=name)
        else:
            made[key] = values[0]
    return made


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode()


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/classify",
        handle=classify,
        summary="Probabilities that labels fit images",
        takes=Classify,
        gives=Classified,
        form=_of_form,
        of_images=True,
    ),
)
