"""From a request to an answer: bounds, deadline, errors, and clients that go away."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from siglip_jax.serve.body import converted, parsed, read_body, read_form
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.operation import Call, Operation
from siglip_jax.serve.service import Service

_log = logging.getLogger("siglip_jax.serve")
_ENCODER = msgspec.json.Encoder()
_TIMEOUT = "x-request-timeout"
_GONE = 499  # what nginx writes for a client that went


def handler(operation: Operation, service: Service) -> Callable[[Request], Awaitable[Response]]:
    """What starlette calls for an operation."""

    async def handle(request: Request) -> Response:
        metrics, path, begun = service.metrics, operation.path, time.monotonic()
        metrics.requests.labels(path).inc()
        try:
            response = await _answer(operation, service, request)
            metrics.successes.labels(path).inc()
        except ApiError as error:
            metrics.failures.labels(path, error.code or str(error.status)).inc()
            response = refusal(operation, error)
        except ClientDisconnect:
            metrics.failures.labels(path, "client_gone").inc()
            response = Response(status_code=_GONE)
        except Exception:
            # Nothing of the trace goes to the client; whoever runs the service has it.
            _log.exception("%s %s failed", request.method, path)
            metrics.failures.labels(path, "500").inc()
            response = refusal(operation, ApiError(500, "the service failed; its log says why"))
        metrics.request_seconds.labels(path).observe(time.monotonic() - begun)
        return response

    return handle


def refusal(operation: Operation, error: ApiError) -> Response:
    """The answer that says `error`."""
    return _as_json(operation.fails.of(error), error.status, error.headers)


async def _answer(operation: Operation, service: Service, request: Request) -> Response:
    if not operation.admitted:
        return _response(await operation.handle(_call(service, request, b"")))
    if not service.started:
        raise ApiError(
            503,
            "the service is starting or stopping; ask /health/ready",
            code="not_ready",
            headers={"Retry-After": "1"},
        )
    seconds = _seconds(request, service.limits.timeout)
    with contextlib.ExitStack() as held:
        held.enter_context(service.admission.request())
        if operation.of_images:
            service.admission.image_may_come()
        reading = True
        try:
            async with asyncio.timeout(seconds):
                body = await _body(operation, service, request, held)
                reading = False
                call = _call(service, request, body)
                return _response(await _unless_gone(request, operation.handle(call)))
        except TimeoutError:
            what = "its body did not arrive" if reading else "it was not answered"
            status = 408 if reading else 504
            raise ApiError(
                status, f"the request took more than {seconds:g} s: {what}", code="timeout"
            ) from None


def _call(service: Service, request: Request, body: Any) -> Call:
    return Call(service, body, request.path_params, request.headers)


async def _body(
    operation: Operation, service: Service, request: Request, held: contextlib.ExitStack
) -> Any:
    data = await read_body(request, service.limits.body, service.admission, held)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if operation.raw or operation.takes is None:
        return data
    if operation.form is not None and kind == "multipart/form-data":
        fields = await read_form(request, data, service.limits.images)
        return converted(operation.form(fields), operation.takes)
    # Clients that state none, or what curl states unasked, send JSON all the same.
    if kind not in ("application/json", "application/x-www-form-urlencoded", "text/plain", ""):
        or_form = " or multipart/form-data" if operation.form is not None else ""
        raise ApiError(
            415, f"expected a body of application/json{or_form}, got {kind[:100]}",
            code="invalid_content_type",
        )  # fmt: skip
    return parsed(data, operation.takes)


def _seconds(request: Request, most: float) -> float:
    """For a request: the service's bound, or less where the client says so."""
    stated = request.headers.get(_TIMEOUT)
    if stated is None:
        return most
    try:
        wanted = float(stated)
        if not 0 < wanted < float("inf"):
            raise ValueError
    except ValueError:
        raise ApiError(
            400, f"{_TIMEOUT}: expected seconds, got {stated[:100]!r}", param=_TIMEOUT
        ) from None
    return min(wanted, most)


async def _unless_gone(request: Request, answer: Any) -> Any:
    """The answer; given up when the client goes, so that nothing more is computed for it.

    Raises:
      ClientDisconnect: if it went.
    """
    working = asyncio.ensure_future(answer)
    listening = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, listening):
            task.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _response(answer: Any) -> Response:
    return answer if isinstance(answer, Response) else _as_json(answer)


def _as_json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_ENCODER.encode(answer), status, headers, "application/json")
