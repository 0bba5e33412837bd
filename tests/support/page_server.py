"""The service with the bundled model, in a process of its own, for tests in a browser.

    python tests/support/page_server.py [--index FOLDER] [--keys KEY...] [--names NAME...]

Prints its address once it listens.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from paths import REPO

_START = 180  # seconds, on a machine that is busy


@contextlib.contextmanager
def page_server(*arguments: object) -> Iterator[str]:
    """Its address, once all is compiled."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPO)}
    environment.pop("XLA_FLAGS", None)  # eight devices, of the tests' own process
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the server did not start"
            _wait(f"{address}health/ready")
            yield address
        finally:
            process.terminate()


def _wait(address: str) -> None:
    for _ in range(_START * 4):
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(address):
            return
        time.sleep(0.25)
    raise AssertionError(f"not ready after {_START} s")


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index")
    parser.add_argument("--keys", nargs="*", default=[])
    parser.add_argument("--names", nargs="+", default=["siglip_emoji"])
    args = parser.parse_args()

    import siglip_jax
    from siglip_jax.serve import create_app
    from siglip_jax.serve.keys import KeyRequired, Keys
    from siglip_jax.serve.server import address, bind, run

    models = dict.fromkeys(args.names, siglip_jax.load("siglip_emoji"))
    # Few sizes of batches: each is compiled.
    app = create_app(models, index=args.index, batch_size=2, text_batch_size=4)
    listening = bind("127.0.0.1", 0)
    print(f"{address(listening)}/", flush=True)
    run(KeyRequired(app, Keys(args.keys)), listening, grace=1)


if __name__ == "__main__":
    _main()
