"""A connection of a client, bounded: in the size and time of its headers, and in what follows."""

import asyncio
import dataclasses
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.operation import Failure

HEADER_BYTES = 32 << 10  # of a request, beyond which h11 gives it up
HEADER_SECONDS = 10.0  # from the first byte of a request, or from connecting, to its last header
IDLE_SECONDS = 15  # between two requests
# For what a client still sends of a body that has been answered, such as one that is too large:
# it would not see the answer if the connection were closed at once.
REST_SECONDS = 5.0
LINGER_SECONDS = 0.5  # for requests that were under way when the server was told to stop


@dataclasses.dataclass
class Shared:
    """What the connections of a server have in common.

    Attributes:
      most: connections at a time.
      stopping: each is closed after the answer that it waits for.
    """

    most: int
    stopping: bool = False


class Connection(H11Protocol):
    """uvicorn's, with bounds that it leaves to a proxy."""

    def __init__(self, *arguments: Any, shared: Shared, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._shared = shared
        self._headers_due: asyncio.TimerHandle | None = None
        self._rest_due: asyncio.TimerHandle | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._shared.most:
            self._refuse(503, "the server has too many connections; try again in a while")
            return
        self._watch()
        if self._shared.stopping:  # it was on its way when the others were told
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()
        if self._rest_due is not None:
            self._rest_due.cancel()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP, or has no end."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is on its way, and another would be taken for it
        elif len(self.conn.trailing_data[0]) > HEADER_BYTES:
            self._refuse(431, f"the headers of a request have at most {HEADER_BYTES:,} bytes")
        else:
            self._refuse(400, "this is no HTTP/1.1 request")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.DONE:
            self._rest_due = self.loop.call_later(REST_SECONDS, self.transport.close)
        self._watch()

    def shutdown(self) -> None:
        """An idle client may have sent a request that is not yet here: it is answered."""
        if self.cycle is None or self.cycle.response_complete:
            self._leaving = True
            self.loop.call_later(LINGER_SECONDS, self._leave)
        else:
            self._last()

    def _leave(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _last(self) -> None:
        """The request in hand is the last of this connection, which its client is told."""
        self.cycle.keep_alive = False
        if not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _watch(self) -> None:
        """Sets or stops the clocks, by what is waited for."""
        if self._rest_due is not None and self.conn.our_state is not h11.DONE:
            self._rest_due.cancel()
            self._rest_due = None
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._forget()
            if self._leaving and self.cycle is not None and self.cycle.keep_alive:
                self._last()
        elif self._headers_due is None and self.timeout_keep_alive_task is None:
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _refuse(self, status: int, message: str) -> None:
        body = msgspec.json.encode(Failure.of(ApiError(status, message)))
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        headers += [("connection", "close")] + ([("retry-after", "1")] if status == 503 else [])
        for event in (
            h11.Response(status_code=status, headers=headers, reason=b""),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
