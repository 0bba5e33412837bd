"""A small application under `siglip_jax.serve.server`, in a process of its own.

    python plain_server.py '{"grace": 5, "HEADER_SECONDS": 0.5}'

prints its address when it is ready and "stopping" when it was told to stop.
"""

import asyncio
import json
import sys

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from siglip_jax.serve import connection, server


async def slow(request):
    await asyncio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("slow")


async def size(request):
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        return PlainTextResponse("gone", 499)


async def refuse(request):
    return PlainTextResponse("too large", 413)


async def fail(app):
    raise ValueError("no start")
    yield


def main():
    options = json.loads(sys.argv[1])
    for name in [name for name in options if name.isupper()]:
        setattr(connection, name, options.pop(name))
    routes = [
        Route("/slow/{seconds}", slow),
        Route("/size", size, methods=["GET", "POST"]),
        Route("/refuse", refuse, methods=["POST"]),
    ]
    lifespan = {"lifespan": fail} if options.pop("fails", False) else {}
    listening = server.bind("127.0.0.1", 0)
    server.run(
        Starlette(routes=routes, **lifespan),
        listening,
        on_ready=lambda: print(server.address(listening), flush=True),
        on_stop=lambda: print("stopping", flush=True),
        **options,
    )
    print("done", flush=True)


if __name__ == "__main__":
    main()
