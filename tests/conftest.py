"""Settings that every test runs under.

Eight fake CPU devices, the highest matmul precision, no silent rank promotion,
and shapes in signatures checked at every call.
"""

import os

# XLA reads this once, so before anything imports jax.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jaxtyping

jaxtyping.install_import_hook("siglip_jax.models", "beartype.beartype").__enter__()

import jax  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
