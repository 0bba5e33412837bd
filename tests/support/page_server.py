"""`siglip-jax serve` with the bundled model, in a process of its own, for tests in a browser."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from paths import REPO

from siglip_jax.serve.keys import VARIABLE


@contextlib.contextmanager
def page_server(*arguments: object, key: str = "") -> Iterator[str]:
    """Its address, once all is compiled; with a `key` that it asks for."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPO), VARIABLE: key}
    environment.pop("XLA_FLAGS", None)  # eight devices, of the tests' own process
    command = [sys.executable, "-m", "siglip_jax", "serve", "--port", "0", "--grace", "1"]
    # Few sizes of batches: each is compiled.
    command += ["--batch-size", "2", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert "ready at " in said, f"the server did not start: {said}"
            yield f"{said.rpartition(' ')[2].strip()}/"
        finally:
            process.terminate()
