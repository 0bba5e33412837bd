"""A service that scores images against labels and embeds both, over HTTP.

`siglip-jax serve` runs it; `create_app` is the same as an ASGI application.
"""

from siglip_jax.serve.app import create_app
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.limits import Limits

__all__ = ["ApiError", "Limits", "create_app"]
