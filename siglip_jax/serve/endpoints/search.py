"""`POST /v1/search`: the rows of the service's index nearest to texts and images, exactly."""

import asyncio
from typing import Annotated

import msgspec
import numpy as np
from starlette.responses import Response

from siglip_jax.scoring.scores import sigmoid
from siglip_jax.search import Hit as Found
from siglip_jax.serve.endpoints.embeddings import (
    Input,
    Part,
    either_input,
    embedded,
    string_input,
)
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.index import MOST, Index
from siglip_jax.serve.operation import Call, Operation

_IMAGE = "/v1/index/images/{row}"


class Search(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to search for.

    Attributes:
      query: a text, the data URI of an image, an object {"text"} or {"image"}, or a list of
        these, each a search of its own.
      k: how many hits a query has, best first.
      model: must be that of the index, if given.
      user: not used.
    """

    query: str | Part | list[str | Part]
    k: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 10
    model: str | None = None
    user: str | None = None


class Hit(msgspec.Struct, omit_defaults=True):
    """A row of the index.

    Attributes:
      row: its number.
      key: of the item, as the job that made the index has it.
      similarity: cosine of the angle between the embeddings.
      score: the probability that the text fits the image; none where both are of one kind.
      logit: of that probability.
      caption: the text of the row, of an index of texts.
      image: path of a small JPEG, of an index of images.
    """

    row: int
    key: str
    similarity: float
    score: float | None = None
    logit: float | None = None
    caption: str | None = None
    image: str | None = None


class Hits(msgspec.Struct):
    """Of one query, best first."""

    index: int
    hits: list[Hit]


class Searched(msgspec.Struct, kw_only=True):
    """The answer."""

    object: str = "list"
    data: list[Hits]
    model: str


class AboutIndex(msgspec.Struct, kw_only=True):
    """What can be searched: `rows` of `what` ("images" or "texts"), as `model` embeds them."""

    object: str = "index"
    model: str
    what: str
    rows: int


class Indexes(msgspec.Struct, kw_only=True):
    """The index of the service; an empty list where it was started without one."""

    object: str = "list"
    data: list[AboutIndex]


async def search(call: Call) -> Searched:
    """The nearest rows of each query."""
    asked: Search = call.body
    index = _index(call)
    if asked.model is not None and call.service.model(asked.model).name != index.model:
        raise ApiError(
            400, f"the index is one of {index.model}; leave out model, or name that", param="model"
        )
    queries = _queries(asked)
    rows, _ = await embedded(call.service, call.service.model(index.model), queries)
    found = await asyncio.to_thread(index.search, rows, asked.k)
    data = [
        Hits(number, [_hit(index, hit, f"{query.kind}s") for hit in hits])
        for number, (hits, query) in enumerate(zip(found, queries, strict=True))
    ]
    return Searched(data=data, model=index.model)


async def image(call: Call) -> Response:
    """A small JPEG of a row; the client names a number, never a file."""
    index, row = _index(call), call.path["row"]
    try:
        # More digits are no row of any index, and may be too many for int.
        data = await asyncio.to_thread(index.thumbnail, int(row[:12]) if row.isdecimal() else -1)
    except LookupError as error:
        raise ApiError(404, str(error.args[0]), param="row") from None
    except ValueError:
        # Its message names the file, which is the service's own business.
        raise ApiError(404, f"the image of row {int(row)} cannot be read", param="row") from None
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private"})


async def about(call: Call) -> Indexes:
    """What can be searched."""
    index = call.service.index
    if index is None:
        return Indexes(data=[])
    return Indexes(data=[AboutIndex(model=index.model, what=index.what, rows=len(index))])


def _index(call: Call) -> Index:
    if call.service.index is None:
        raise ApiError(
            404, "this service has no index to search; it is started with --index", code="no_index"
        )
    return call.service.index


def _queries(asked: Search) -> list[Input]:
    """Each query, a text or an image, and where it stands in the request."""
    given = asked.query
    if not isinstance(given, list):
        return [_query(given, "query")]
    if not given:
        raise ApiError(400, "query: the list is empty; give at least one", param="query")
    return [_query(each, f"query[{number}]") for number, each in enumerate(given)]


def _query(given: str | Part, param: str) -> Input:
    if isinstance(given, str):
        return string_input(given, param)
    return either_input(given.text, given.image, param)


def _hit(index: Index, hit: Found, kind: str) -> Hit:
    # A probability is of an image with a text.
    logit = index.logit(hit.similarity) if kind != index.what else None
    return Hit(
        row=hit.place,
        key=hit.row.key,
        similarity=hit.similarity,
        score=None if logit is None else float(sigmoid(np.float32(logit))),
        logit=logit,
        caption=hit.row.text,
        image=_IMAGE.format(row=hit.place) if index.what == "images" else None,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/search",
        handle=search,
        summary="The images or texts of the index nearest to texts and images",
        takes=Search,
        gives=Searched,
    ),
    Operation(
        method="GET",
        path="/v1/index",
        handle=about,
        summary="What can be searched",
        gives=Indexes,
        admitted=False,
    ),
    Operation(method="GET", path=_IMAGE, handle=image, summary="A small image of a row"),
)
