"""What a service does at one path: the one table that routes, documents and tests come from."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from siglip_jax.serve.errors import ApiError, Problem
from siglip_jax.serve.service import Service


class Failure(msgspec.Struct):
    """Every answer that is no success."""

    error: Problem

    @classmethod
    def of(cls, error: ApiError) -> "Failure":
        return cls(error.problem)


class PlainFailure(msgspec.Struct):
    """The same, as Hugging Face and KServe have it.

    >>> PlainFailure.of(ApiError(404, "no model is called x"))
    PlainFailure(error='no model is called x')
    """

    error: str

    @classmethod
    def of(cls, error: ApiError) -> "PlainFailure":
        return cls(error.message)


@dataclasses.dataclass(frozen=True)
class Call:
    """A request, read and checked.

    Attributes:
      service: that it is for.
      body: of the type that the operation takes; bytes where it takes none.
      path: what stands in the place of the braces of the path.
      headers: lower case.
    """

    service: Service
    body: Any
    path: Mapping[str, str]
    headers: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
      handle: from a call to an answer: of the type `gives`, or a response of starlette.
      summary: one line, for the documentation.
      takes: msgspec's type of the JSON body; None for requests without a body.
      gives: the type of the answer; None where it is no JSON.
      form: from the fields of a form, texts and files, to what `takes` is made of; None where
        no form is taken.
      raw: the body comes as bytes, to be read with the headers.
      fails: the type of an answer that is no success.
      of_images: is of no use without an image, and refused unread where no more may wait.
      admitted: counts against the bounds of the service, and needs it to be ready.
    """

    method: str
    path: str
    handle: Callable[[Call], Awaitable[Any]]
    summary: str
    takes: Any = None
    gives: Any = None
    form: Callable[[list[tuple[str, Any]]], Any] | None = None
    raw: bool = False
    fails: type[Failure] | type[PlainFailure] = Failure
    of_images: bool = False
    admitted: bool = True
