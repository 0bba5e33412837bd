"""`siglip_jax.serve` with the bundled model, in a process of its own, for clients over HTTP.

    python bundled_server.py '{"body": 1000000}'

takes fields of `Limits` and prints its address when it is ready.
"""

import json
import sys
from pathlib import Path

import siglip_jax
from siglip_jax.serve import Limits, create_app, server
from siglip_jax.serve.keys import Keys
from siglip_jax.serve.log import writer


def main():
    options = json.loads(sys.argv[1])
    log = options.pop("log", None)
    keys = Keys(options.pop("keys", []))
    listening = server.bind("127.0.0.1", 0)
    with writer(Path(log) if log else None) as write:
        app = create_app(
            {"emoji": siglip_jax.load("siglip_emoji")},
            limits=Limits(**options),
            keys=keys,
            log=write if log else None,
            batch_size=4,
            text_batch_size=4,
            workers=2,
        )
        service = app.state.service
        server.run(
            app,
            listening,
            grace=20,
            on_stop=service.stop_taking,
            is_ready=lambda: service.ready or bool(service.failed),
            on_ready=lambda: print(service.failed or server.address(listening), flush=True),
        )


if __name__ == "__main__":
    main()
