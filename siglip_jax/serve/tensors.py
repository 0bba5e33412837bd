"""Tensors of the open inference protocol: in JSON, or as bytes behind it."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from siglip_jax.serve.body import parsed
from siglip_jax.serve.errors import ApiError

Shape = Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]], msgspec.Meta(max_length=8)]
Parameters = dict[str, Any]
_LENGTH = 4  # bytes that say how long an element of a BYTES tensor is


class Tensor(msgspec.Struct, omit_defaults=True):
    """A tensor; its values are in `data`, or behind the JSON where `parameters` say how many bytes.

    Attributes:
      datatype: BYTES of a request, FP32 of an answer.
      data: in JSON, flat or nested.
      parameters: `binary_data_size`, if it is not in JSON.
    """

    name: str
    shape: Shape
    datatype: str
    data: list[Any] | None = None
    parameters: Parameters = {}


class RequestedOutput(msgspec.Struct, omit_defaults=True):
    """An output to answer with; `parameters` may have `binary_data`."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, omit_defaults=True):
    """Tensors to compute with; `parameters` may have `binary_data_output`."""

    inputs: list[Tensor]
    outputs: list[RequestedOutput] | None = None
    id: str | None = None
    parameters: Parameters = {}


class InferResponse(msgspec.Struct, omit_defaults=True):
    """Tensors that were asked for."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None


def read_request(
    body: bytes, json_size: str | None, most: int
) -> tuple[InferRequest, list[list[Any]]]:
    """The request, and the elements of each of its inputs: strings of JSON, or bytes.

    Args:
      json_size: of the header `Inference-Header-Content-Length`; None where all is JSON.
      most: elements of an input.

    Raises:
      ApiError: 400 that names the tensor.
    """
    size = len(body)
    if json_size is not None:
        if not (json_size.isdecimal() and int(json_size) <= len(body)):
            raise ApiError(
                400,
                "Inference-Header-Content-Length: expected the bytes of the JSON, at most the "
                f"{len(body):,} of the body, got {json_size[:40]}",
            )
        size = int(json_size)
    asked = parsed(body[:size], InferRequest)
    behind, elements = memoryview(body)[size:], []
    for i, tensor in enumerate(asked.inputs):
        param = f"inputs[{i}]"
        found, behind = _elements(tensor, behind, param, most)
        if math.prod(tensor.shape) != len(found):
            raise ApiError(
                400,
                f"{param}: {tensor.name[:40]!r} has shape {_shown(tensor.shape)} and "
                f"{len(found):,} elements",
                param=f"{param}.shape",
            )
        elements.append(found)
    if behind:
        raise ApiError(400, f"{len(behind):,} bytes of the body belong to no input")
    return asked, elements


def _elements(
    tensor: Tensor, behind: memoryview, param: str, most: int
) -> tuple[list[Any], memoryview]:
    """Of a tensor, and what of the bytes behind the JSON is left."""
    if tensor.datatype != "BYTES":
        raise ApiError(
            400,
            f"{param}: {tensor.name[:40]!r} must be of datatype BYTES, got "
            f"{tensor.datatype[:40]!r}",
            param=f"{param}.datatype",
        )
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise ApiError(
            400, f"{param}: give data, or the parameter binary_data_size", param=f"{param}.data"
        )
    if size is None:
        return _flat(tensor.data, param), behind
    if not isinstance(size, int) or not 0 <= size <= len(behind):
        raise ApiError(
            400,
            f"{param}: binary_data_size must be at most the {len(behind):,} bytes that are left, "
            f"got {str(size)[:40]}",
            param=f"{param}.parameters.binary_data_size",
        )
    return _split(behind[:size], param, most), behind[size:]


def _flat(data: Any, param: str) -> list[str]:
    made: list[str] = []
    waiting = [iter(data)]
    while waiting:
        for value in waiting[-1]:
            if isinstance(value, list):
                waiting.append(iter(value))
                break
            if not isinstance(value, str):
                raise ApiError(400, f"{param}: expected strings in data", param=f"{param}.data")
            made.append(value)
        else:
            waiting.pop()
    return made


def _split(data: memoryview, param: str, most: int) -> list[bytes]:
    """Elements, each behind its length."""
    made: list[bytes] = []
    while data:
        if len(made) == most:
            raise ApiError(400, f"{param}: more than {most:,} elements", param=param)
        size = int.from_bytes(data[:_LENGTH], "little")
        if len(data) < _LENGTH or len(data) - _LENGTH < size:
            raise ApiError(
                400,
                f"{param}: element {len(made)} of the BYTES tensor is cut off; each is its length "
                "in 4 bytes, little-endian, and itself",
                param=param,
            )
        made.append(bytes(data[_LENGTH : _LENGTH + size]))
        data = data[_LENGTH + size :]
    return made


def write_response(
    answer: InferResponse, arrays: Sequence[np.ndarray], binary: Sequence[bool]
) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON; None where all are.

    Args:
      answer: its tensors without data.
      arrays: the values of each, float32.
      binary: which of them go behind the JSON.

    >>> tensor = Tensor("z", [1, 2], "FP32")
    >>> write_response(InferResponse("m", "1", [tensor]), [np.float32([[1, 2]])], [False])[0][-12:]
    b'[1.0,2.0]}]}'
    """
    behind = []
    for tensor, array, apart in zip(answer.outputs, arrays, binary, strict=True):
        if apart:
            behind.append(np.ascontiguousarray(array, "<f4").tobytes())
            tensor.parameters = {"binary_data_size": len(behind[-1])}
        else:
            tensor.data = array.ravel().tolist()
    text = msgspec.json.encode(answer)
    return b"".join([text, *behind]), len(text) if behind else None


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape))[:60]
