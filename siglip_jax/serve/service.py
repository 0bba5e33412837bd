"""The models of a service and what bounds them; no word of HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from siglip_jax.messages import did_you_mean
from siglip_jax.pretrained import Pretrained
from siglip_jax.serve.admission import Admission
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.images import Fetch, image_bytes
from siglip_jax.serve.index import Index
from siglip_jax.serve.limits import Limits
from siglip_jax.serve.metrics import Metrics
from siglip_jax.serve.served_model import ServedModel

_COMPILED = "/jax/core/compile/backend_compile_duration"


class Service:
    """Models, admission and metrics.

    Args:
      models: by the names that requests give; the first is meant where none is given.
      limits: of requests.
      fetch: reads images by URL; None where none is read.
      index: of one of the models; None where nothing is searched.
      options: of `ServedModel`.

    Attributes:
      ready: all is compiled, and requests are taken.
      failed: why it will never be.
    """

    def __init__(
        self,
        models: Mapping[str, Pretrained],
        *,
        limits: Limits | None = None,
        fetch: Fetch | None = None,
        index: Index | None = None,
        **options: Any,
    ) -> None:
        if not models:
            raise ValueError("there is no model to serve; give at least one")
        self.limits, self.metrics = limits or Limits(), Metrics()
        self.admission = Admission(self.limits, self.metrics)
        self.models = {
            name: ServedModel(name, each, self.limits, self.metrics, self.admission, **options)
            for name, each in models.items()
        }
        self._fetch, self.index = fetch, index
        self._ready, self.failed = False, ""
        self._listening = False

    @property
    def ready(self) -> bool:
        return self._ready

    def start(self) -> None:
        """Compiles; `ready` afterwards."""
        try:
            for model in self.models.values():
                model.start()
            if self.index is not None:
                self.index.start()
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
            raise
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self._listening = True
        self._set_ready(True)

    def stop_taking(self) -> None:
        """`ready` no more; what was accepted is answered."""
        self._set_ready(False)

    def close(self) -> None:
        """Ends all threads."""
        self._set_ready(False)
        if self._listening:
            jax.monitoring.unregister_event_duration_listener(self._heard)
        for model in self.models.values():
            model.close()

    def model(self, name: str | None) -> ServedModel:
        """The model of that name, or the first.

        Raises:
          ApiError: 404, with near names.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            hint = did_you_mean(name, self.models, otherwise=f"; there is {known}")
            raise ApiError(
                404,
                f"no model is called {name[:100]!r}{hint}",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    async def images(self, values: Sequence[str | bytes], params: Sequence[str]) -> list[bytes]:
        """The files that strings of a request stand for; bytes are files already.

        Raises:
          ApiError: 400 for what stands for none, or more than the limit.
        """
        if len(values) > self.limits.images:
            raise ApiError(
                400,
                f"{len(values):,} images in a request; at most {self.limits.images:,} are taken",
                param=params[0].partition("[")[0],
            )
        return [
            value if isinstance(value, bytes) else await image_bytes(value, param, self._fetch)
            for value, param in zip(values, params, strict=True)
        ]

    def _set_ready(self, ready: bool) -> None:
        self._ready = ready
        self.metrics.ready.set(ready)

    def _heard(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == _COMPILED and self._ready:
            self.metrics.recompiles.inc()
