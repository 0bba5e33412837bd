"""Settings that every test runs under.

Eight fake CPU devices, the highest matmul precision, no silent rank promotion,
and shapes in signatures checked at every call.
"""

import os
from pathlib import Path

# XLA reads this once, so before anything imports jax.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jaxtyping
import pytest

REPO = Path(__file__).parents[1]


def _with_shapes() -> list[str]:
    """The modules that state shapes in signatures."""
    files = (REPO / "siglip_jax").rglob("*.py")
    named = [path for path in files if "from jaxtyping import" in path.read_text("utf-8")]
    return [".".join(path.relative_to(REPO).with_suffix("").parts) for path in named]


jaxtyping.install_import_hook(["siglip_jax.models", *_with_shapes()], "beartype.beartype")

import jax  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def compilation_cache_of_one_test():
    """The command sets where jax keeps what it compiles, unless that is set: for itself only."""
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    names += ("JAX_ENABLE_COMPILATION_CACHE",)
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
