"""The same service on several machines: replicas under Ray Serve, a chip each.

Ray starts, watches, replaces and scales them, and spreads requests; nothing of that is ours.
"""

# Ray is installed by whoever has a cluster.
# pyright: reportMissingImports=false

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette

from siglip_jax.messages import optional_package
from siglip_jax.pretrained import load
from siglip_jax.serve.app import create_app
from siglip_jax.serve.limits import Limits


def deployment(
    models: Mapping[str, str],
    *,
    replicas: int = 1,
    actor: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    name: str = "siglip",
    **options: Any,
) -> Any:
    """An application for `ray.serve.run`, each replica of which is a whole service.

    A replica loads the models where it runs, so that their files, or the names of released
    checkpoints, must be there. It takes requests once all is compiled.

    Args:
      models: what requests call them, and what `siglip_jax.load` takes.
      replicas: how many; each needs devices of its own.
      actor: Ray's `ray_actor_options` of a replica, such as {"num_gpus": 1},
        {"resources": {"TPU": 4}} or {"num_cpus": 8}.
      limits: of each replica.
      name: of the deployment.
      options: of `create_app`.

    Raises:
      ValueError: if Ray Serve is not installed.

        from ray import serve
        from siglip_jax.serve.ray import deployment

        serve.run(deployment({"siglip": "ViT-B-16-SigLIP"}, replicas=4, actor={"num_gpus": 1}))
    """
    serve = optional_package("ray.serve", "'ray[serve]>=2.60'", name="Ray Serve")
    bounds = limits or Limits()

    class Replica:
        """One service; Ray asks after its health and replaces it."""

        def __init__(self) -> None:
            self._app: Starlette | None = None

        def __serve_build_asgi_app__(self) -> Starlette:
            loaded = {called: load(model) for called, model in models.items()}
            self._app = create_app(loaded, limits=bounds, wait=True, **options)
            return self._app

        def check_health(self) -> None:
            """Raises RuntimeError once the service can answer no more."""
            if self._app is not None and (failed := self._app.state.service.failed):
                raise RuntimeError(failed)

    deployed = serve.deployment(
        serve.ingress()(Replica),
        name=name,
        num_replicas=replicas,
        ray_actor_options=dict(actor or {}),
        # More wait at the proxy of Ray, and not in a replica that another could help.
        max_ongoing_requests=bounds.requests,
        graceful_shutdown_timeout_s=bounds.grace,
    )
    return deployed.bind()
