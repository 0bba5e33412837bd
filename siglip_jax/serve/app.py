"""The service as an ASGI application, for any server of these."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from siglip_jax.calibration import Calibration
from siglip_jax.messages import did_you_mean
from siglip_jax.pretrained import Pretrained
from siglip_jax.serve.answering import handler, refusal
from siglip_jax.serve.endpoints import (
    about,
    classify,
    embeddings,
    hugging_face,
    kserve,
    search,
)
from siglip_jax.serve.endpoints.page import OPERATIONS as PAGE
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.images import Fetch
from siglip_jax.serve.index import Index
from siglip_jax.serve.keys import KeyRequired, Keys
from siglip_jax.serve.limits import Limits
from siglip_jax.serve.log import RequestLog, Write
from siglip_jax.serve.operation import Operation
from siglip_jax.serve.service import Service

_log = logging.getLogger("siglip_jax.serve")


def create_app(
    models: Mapping[str, Pretrained],
    *,
    limits: Limits | None = None,
    fetch: Fetch | None = None,
    index: str | os.PathLike[str] | None = None,
    calibrations: Sequence[Calibration] = (),
    page: bool = True,
    keys: Keys | Iterable[str] = (),
    cors: Sequence[str] = (),
    log: Write | None = None,
    wait: bool = False,
    **options: Any,
) -> Starlette:
    """The service of `models`: what `siglip-jax serve` runs, for a host of your own.

    It compiles once the host starts it (ASGI's lifespan); `/health/ready` says when that is done.

    Args:
      models: by the names that requests give; the first is meant where none is given.
      limits: of requests; `Limits()` unless given.
      fetch: reads images by URL; none are read unless given.
      index: folder that `siglip-jax embed` wrote with one of the models, for `/v1/search`.
      calibrations: whose probabilities requests may ask for, each of one of the models.
      page: answer `GET /` with a page to try it.
      keys: API keys, one of which each request must have; none is needed unless given.
      cors: origins of web pages that may ask, such as "https://example.org"; "*" for any.
      log: takes the facts of each request, as `log.writer` gives it; none are told unless given.
      wait: the host is told that it started once all is compiled, and not before.
      options: of `ServedModel`: `batch_size`, `text_batch_size`, `workers`.

    Returns:
      An application whose `state.service` is the `Service`.

    Raises:
      ValueError: if there is no model, or the index or a calibration is none of these models'.

    >>> import siglip_jax
    >>> from starlette.testclient import TestClient
    >>> app = create_app({"emoji": siglip_jax.load("siglip_emoji")}, batch_size=1)
    >>> with TestClient(app) as client:
    ...     client.get("/v1/models").json()["data"][0]["id"]
    'emoji'
    """
    searched = None if index is None else Index(index, models)
    service = Service(models, limits=limits, fetch=fetch, index=searched, **options)
    for calibration in calibrations:
        service.calibrate(calibration)
    families = (classify, embeddings, hugging_face, kserve, search, about)
    operations = tuple(each for family in families for each in family.OPERATIONS)
    operations = (*operations, *(PAGE if page else ()))
    operations = (*operations, about.documentation(operations))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        starting = asyncio.create_task(asyncio.to_thread(_start, service))
        try:
            if wait:
                await starting
            yield
        finally:
            service.ending.set()
            await starting
            await asyncio.to_thread(service.close)

    middleware = [Middleware(RequestLog, write=log)]
    if cors:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(cors),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type", "x-api-key"],
            )
        )
    # Within the other, as a browser asks whether it may without a key.
    middleware.append(Middleware(KeyRequired, keys=keys if isinstance(keys, Keys) else Keys(keys)))
    app = Starlette(
        routes=[
            Route(each.path, handler(each, service), methods=[each.method]) for each in operations
        ],
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route(operations)},
    )
    app.state.service = service
    return app


def _start(service: Service) -> None:
    try:
        service.start()
    except Exception:
        _log.exception("the service cannot start")


def _no_route(operations: Sequence[Operation]) -> Any:
    """What starlette refuses by itself, in the shape of all other errors."""
    paths = sorted({each.path.replace(":path", "") for each in operations})
    # Under these, clients read errors in another shape.
    families = {each.path.partition("{")[0]: each for each in operations if "{" in each.path}

    async def handle(request: Request, error: HTTPException) -> Response:
        path, method = request.url.path[:200], request.method
        if error.status_code == 404:
            message = f"there is no path {path}{did_you_mean(path, paths)}"
        elif error.status_code == 405:
            message = f"{path} does not take {method}"
        else:
            message = error.detail
        headers = dict(error.headers or {})
        known = (each for start, each in families.items() if path.startswith(start))
        operation = next(known, operations[0])
        return refusal(operation, ApiError(error.status_code, message, headers=headers))

    return handle
