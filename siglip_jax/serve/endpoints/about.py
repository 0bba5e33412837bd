"""What a service says of itself: models, health, metrics, documentation."""

from typing import Any

import msgspec
from starlette.responses import JSONResponse, PlainTextResponse, Response

from siglip_jax.config import NaFlexVision
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.openapi import document
from siglip_jax.serve.operation import Call, Operation
from siglip_jax.serve.served_model import ServedModel


class Calibrated(msgspec.Struct):
    """Labels and templates of a calibration, its method, and its rule of thresholds."""

    labels: list[str]
    templates: list[str]
    method: str
    rule: str | None


class Model(msgspec.Struct, kw_only=True):
    """A model that is served.

    Attributes:
      id: what requests call it.
      capabilities: what it does.
      dimensions: numbers of an embedding.
      resolution: pixels of a side; None where images keep their aspect ratio.
      context_length: token ids of a text; None of an image tower alone.
      profile: whose preprocessing it follows.
      calibrations: sets of labels for which there are calibrated probabilities.
    """

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "siglip_jax"
    capabilities: list[str]
    dimensions: int
    resolution: int | None
    context_length: int | None
    profile: str
    calibrations: list[Calibrated] = []


class Models(msgspec.Struct, kw_only=True):
    """All models of the service, the one that is meant where none is named first."""

    object: str = "list"
    data: list[Model]


class Health(msgspec.Struct):
    """`status` is "ok", "starting" or "stopping"."""

    status: str


async def models(call: Call) -> Models:
    """All models."""
    return Models(data=[_model(each) for each in call.service.models.values()])


async def model(call: Call) -> Model:
    """One model."""
    return _model(call.service.model(call.path["id"]))


def _model(served: ServedModel) -> Model:
    config = served.scorer.model.config
    image, text = config.vision is not None, config.text is not None
    can = ["classify"] if image and text else []
    can += ["embed_images"] if image else []
    can += ["embed_texts"] if text else []
    return Model(
        id=served.name,
        capabilities=can,
        dimensions=served.scorer.width(),
        resolution=None if isinstance(config.vision, NaFlexVision | None) else config.vision.res,
        context_length=None if config.text is None else config.text.length,
        profile=served.pretrained.profile.name,
        calibrations=[
            Calibrated(list(each.labels), list(each.templates), each.method, each.rule)
            for each in served.calibrations.values()
        ],
    )


async def alive(call: Call) -> Health:
    """200 while the process answers; 503 once it is known never to be ready."""
    if call.service.failed:
        raise ApiError(503, "the service could not start; its log says why", code="failed")
    return Health("ok" if call.service.started else "starting")


async def ready(call: Call) -> Health:
    """200 when requests are taken, else 503."""
    if not call.service.ready:
        raise ApiError(503, "the service is starting or stopping", code="not_ready")
    return Health("ok")


async def metrics(call: Call) -> Response:
    """Prometheus's text."""
    return PlainTextResponse(
        call.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


def _about(path: str, handle: Any, summary: str, gives: Any = None) -> Operation:
    return Operation(
        method="GET", path=path, handle=handle, summary=summary, gives=gives, admitted=False
    )


OPERATIONS = (
    _about("/v1/models", models, "The models that are served", Models),
    _about("/v1/models/{id:path}", model, "One model", Model),
    _about("/health", alive, "Whether the process lives", Health),
    _about("/health/ready", ready, "Whether requests are taken", Health),
    _about("/ping", ready, "Whether requests are taken", Health),
    _about("/metrics", metrics, "Counters for Prometheus"),
)


def documentation(operations: tuple[Operation, ...]) -> Operation:
    """`/openapi.json` of all operations."""

    async def openapi(call: Call) -> Response:
        return JSONResponse(document(operations))

    return _about("/openapi.json", openapi, "This document")
