"""Runs an ASGI application under uvicorn until it is told to stop."""

import contextlib
import functools
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from siglip_jax.messages import reason
from siglip_jax.serve.connection import HEADER_BYTES, IDLE_SECONDS, Connection, Shared
from siglip_jax.stop import Stop
from siglip_jax.weights.staging import remove_unfinished

_BACKLOG = 1024
_PROMISE = "what was accepted is answered"
# Seconds that a thread may go on for where another waits, instead of Python's 0.005: each call that
# lets go of the interpreter, such as to send, else waits so long for the threads that decode.
_TURN = 0.0005
_AFTER = 2.0  # seconds that threads have to end in, once all is answered


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything that takes long is begun.

    Args:
      host: a name or an address, such as "127.0.0.1" or "::".
      port: 0 for any that is free.

    Raises:
      OSError: if it is taken or not allowed; says which.

    >>> with bind("127.0.0.1", 0) as first:
    ...     bind("127.0.0.1", first.getsockname()[1])
    Traceback (most recent call last):
    OSError: ...
    """
    made = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        # Two may bind what neither listens on.
        made.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        if made is not None:
            made.close()
        hint = "; give another with --port, or 0 for any" if made is not None else ""
        raise OSError(f"cannot listen on port {port} of {host}: {reason(error)}{hint}") from None
    made.setblocking(False)
    return made


def address(listening: socket.socket) -> str:
    """The URL of a socket.

    >>> with bind("127.0.0.1", 0) as listening:
    ...     address(listening)
    'http://127.0.0.1:...'
    """
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def exposed(listening: socket.socket, keys: int) -> str | None:
    """What to warn of before strangers are served; None where none can come.

    Args:
      keys: how many API keys there are.
    """
    host = listening.getsockname()[0]
    if keys or ipaddress.ip_address(host).is_loopback:
        return None
    return (
        f"whoever can connect to {host} may use this service, as there are no API keys; give "
        "--keys FILE, or --host 127.0.0.1"
    )


def run(
    app: ASGIApp,
    listening: socket.socket,
    *,
    grace: float,
    connections: int = 800,
    on_stop: Callable[[], Any] = lambda: None,
    is_ready: Callable[[], bool] = lambda: True,
    on_ready: Callable[[], Any] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT, then answers what was accepted. The second ends it at once.

    Args:
      listening: from `bind`; closed at the end.
      grace: seconds that requests have after the signal; the process ends 2 seconds later at most.
      connections: at a time; more are told 503.
      on_stop: called at the signal.
      is_ready, on_ready: what to call once, and when.

    Raises:
      RuntimeError: if the application cannot start.
    """
    shared = Shared(connections)
    config = uvicorn.Config(
        app,
        http=functools.partial(Connection, shared=shared),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]
    )
    ending = threading.Timer(grace + _AFTER, _end)
    ending.daemon = True

    def stop() -> None:
        shared.stopping = True
        ending.start()
        on_stop()

    sys.setswitchinterval(_TURN)
    with listening, Stop(_PROMISE) as told:
        server = _Server(config, told, stop, is_ready, on_ready)
        try:
            server.run(sockets=[listening])
        except SystemExit:  # uvicorn's way to say that the application did not start
            pass
        finally:
            ending.cancel()
    if not server.started:
        raise RuntimeError("the service cannot start; the lines above say why")


class _Server(uvicorn.Server):
    """Listens to `Stop`, as the other commands do, in the place of uvicorn's own handlers."""

    def __init__(
        self,
        config: uvicorn.Config,
        told: Stop,
        on_stop: Callable[[], None],
        is_ready: Callable[[], bool],
        on_ready: Callable[[], Any],
    ) -> None:
        super().__init__(config)
        self._told, self._on_stop = told, on_stop
        self._is_ready, self._on_ready = is_ready, on_ready
        self._said = False

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def on_tick(self, counter: int) -> bool:
        if not self._said and self._is_ready():
            self._said = True
            self._on_ready()
        stopping = await super().on_tick(counter) or self._told()
        if stopping:
            self._on_stop()
        return stopping


def _end() -> None:
    """Ends the process whatever its threads still do: all that has an answer has it."""
    remove_unfinished()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
