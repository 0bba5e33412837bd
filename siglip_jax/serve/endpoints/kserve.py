"""`/v2`: the open inference protocol of KServe and Triton, for embeddings of images and texts."""

import importlib.metadata
from typing import Any

import msgspec
import numpy as np
from starlette.responses import Response

from siglip_jax.serve.endpoints.embeddings import Input, embedded, text_input
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.operation import Call, Operation, PlainFailure
from siglip_jax.serve.served_model import ServedModel
from siglip_jax.serve.tensors import (
    InferRequest,
    InferResponse,
    Tensor,
    read_request,
    write_response,
)

_VERSION = "1"
_JSON_SIZE = "Inference-Header-Content-Length"
_OUTPUTS = {"image": "image_embedding", "text": "text_embedding"}


class ServerMetadata(msgspec.Struct):
    """What answers."""

    name: str
    version: str
    extensions: list[str]


class Live(msgspec.Struct):
    """Whether the process lives."""

    live: bool


class Ready(msgspec.Struct, omit_defaults=True):
    """Whether requests are taken."""

    ready: bool
    name: str | None = None


class TensorMetadata(msgspec.Struct):
    """A tensor that a model takes or gives; -1 stands for any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """What a model takes and gives: of the inputs at least one, and the output of each."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


async def server(call: Call) -> ServerMetadata:
    """Name and version."""
    version = importlib.metadata.version("siglip-jax")
    return ServerMetadata("siglip_jax", version, ["binary_tensor_data"])


async def live(call: Call) -> Live:
    """200 while the process answers."""
    return Live(True)


async def ready(call: Call) -> Ready:
    """200 when requests are taken, else 503."""
    if not call.service.ready:
        raise ApiError(503, "the service is starting or stopping", code="not_ready")
    return Ready(True)


async def model_ready(call: Call) -> Ready:
    """200 when requests of the model are taken, else 503."""
    name = _model(call).name
    await ready(call)
    return Ready(True, name)


async def model(call: Call) -> ModelMetadata:
    """Inputs and outputs of a model."""
    served = _model(call)
    towers, width = _towers(served), served.scorer.width()
    return ModelMetadata(
        served.name,
        [_VERSION],
        "jax",
        [TensorMetadata(tower, "BYTES", [-1]) for tower in towers],
        [TensorMetadata(_OUTPUTS[tower], "FP32", [-1, width]) for tower in towers],
    )


async def infer(call: Call) -> Response:
    """Embeddings of images, texts, or both."""
    served = _model(call)
    asked, elements = read_request(
        call.body, call.headers.get(_JSON_SIZE), call.service.limits.texts
    )
    inputs = {}
    for i, (tensor, values) in enumerate(zip(asked.inputs, elements, strict=True)):
        inputs[tensor.name] = _inputs(served, tensor, values, i, inputs)
    wanted = _wanted(asked, inputs)
    flat = [one for each in inputs.values() for one in each]
    z, _ = await embedded(call.service, served, flat)
    ends = np.cumsum([len(each) for each in inputs.values()])
    rows = dict(zip(inputs, np.split(z, ends[:-1]), strict=True))
    arrays = [rows[tower] for tower, _ in wanted]
    answer = InferResponse(
        served.name,
        _VERSION,
        [
            Tensor(_OUTPUTS[tower], list(array.shape), "FP32")
            for (tower, _), array in zip(wanted, arrays, strict=True)
        ],
        asked.id,
    )
    body, json_size = write_response(answer, arrays, [binary for _, binary in wanted])
    if json_size is None:
        return Response(body, media_type="application/json")
    return Response(
        body, headers={_JSON_SIZE: str(json_size)}, media_type="application/octet-stream"
    )


def _model(call: Call) -> ServedModel:
    version = call.path.get("version", _VERSION)
    served = call.service.model(call.path["name"])
    if version != _VERSION:
        raise ApiError(404, f"{served.name} has version {_VERSION}, and no {version[:40]!r}")
    return served


def _towers(served: ServedModel) -> list[str]:
    config = served.scorer.model.config
    has = {"image": config.vision is not None, "text": config.text is not None}
    return [tower for tower in _OUTPUTS if has[tower]]


def _inputs(
    served: ServedModel, tensor: Tensor, values: list[Any], index: int, before: dict[str, Any]
) -> list[Input]:
    """What an input tensor stands for, an element each."""
    param, name = f"inputs[{index}]", tensor.name[:40]
    if tensor.name not in _OUTPUTS:
        known = " and ".join(_towers(served))
        raise ApiError(400, f"{param}: there is no input {name!r}; there are {known}", param=param)
    if tensor.name in before:
        raise ApiError(400, f"{param}: the input {name!r} is given twice", param=param)
    if not values:
        raise ApiError(400, f"{param}: the input {name!r} has no element", param=param)
    read = _image if tensor.name == "image" else _text
    kind = "image" if tensor.name == "image" else "text"
    return [
        Input(kind, read(value, f"{param}.data[{i}]"), f"{param}.data[{i}]")
        for i, value in enumerate(values)
    ]


def _image(value: str | bytes, param: str) -> str | bytes:
    """A file; what has letters only, and so is none, stands for one as elsewhere."""
    if isinstance(value, bytes) and value[:1].isascii() and value.isascii():
        text = value.decode("ascii").strip()
        return text if text.isprintable() and " " not in text else value
    return value


def _text(value: str | bytes, param: str) -> str:
    try:
        text = value if isinstance(value, str) else value.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(400, f"{param}: the text is no UTF-8", param=param) from None
    return text_input(text, param).value


def _wanted(asked: InferRequest, inputs: dict[str, Any]) -> list[tuple[str, bool]]:
    """The towers to answer of, and whether as bytes behind the JSON."""
    default = asked.parameters.get("binary_data_output") is True
    if not inputs:
        raise ApiError(400, "inputs: the list is empty; give image, text or both", param="inputs")
    if not asked.outputs:
        return [(tower, default) for tower in inputs]
    towers = {_OUTPUTS[tower]: tower for tower in inputs}
    for i, output in enumerate(asked.outputs):
        if output.name not in towers:
            raise ApiError(
                400,
                f"outputs[{i}]: there is no output {output.name[:40]!r} of these inputs; there is "
                f"{' and '.join(towers)}",
                param=f"outputs[{i}]",
            )
    return [
        (towers[output.name], output.parameters.get("binary_data", default) is True)
        for output in asked.outputs
    ]


def _operation(method: str, path: str, handle: Any, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method, path=path, handle=handle, summary=summary, fails=PlainFailure,
        **more,
    )  # fmt: skip


def _about(path: str, handle: Any, summary: str, gives: Any) -> Operation:
    return _operation("GET", path, handle, summary, gives=gives, admitted=False)


_PATHS = ("/v2/models/{name:path}/versions/{version}", "/v2/models/{name:path}")
# Names of models may have slashes, so that longer paths come first.
OPERATIONS = (
    _about("/v2", server, "Name and version of the server", ServerMetadata),
    _about("/v2/health/live", live, "Whether the process lives", Live),
    _about("/v2/health/ready", ready, "Whether requests are taken", Ready),
    *(
        _operation(
            "POST",
            f"{path}/infer",
            infer,
            "Embeddings of images and texts",
            takes=InferRequest,
            gives=InferResponse,
            raw=True,
        )
        for path in _PATHS
    ),
    *(_about(f"{path}/ready", model_ready, "Whether a model is ready", Ready) for path in _PATHS),
    *(_about(path, model, "Inputs and outputs of a model", ModelMetadata) for path in _PATHS),
)
