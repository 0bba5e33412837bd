"""The models of a service and what bounds them; no word of HTTP."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from siglip_jax.calibration import Calibration
from siglip_jax.calibration.identity import identity_of
from siglip_jax.messages import did_you_mean
from siglip_jax.pretrained import Pretrained
from siglip_jax.serve.admission import Admission
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.images import Fetch, image_bytes
from siglip_jax.serve.index import Index
from siglip_jax.serve.limits import Limits
from siglip_jax.serve.log import note
from siglip_jax.serve.metrics import Metrics
from siglip_jax.serve.served_model import ServedModel
from siglip_jax.serve.together import together

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
      started: all is compiled, and requests are answered.
      ready: so it is, and more of them are wanted.
      failed: why it will never be.
      ending: set to end a start before all is compiled.
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
        self.started, self.ready, self.failed = False, False, ""
        self.ending = threading.Event()
        self._listening = False

    def calibrate(self, calibration: Calibration) -> None:
        """Lets requests to the model that it is of ask for a calibration.

        Raises:
          ValueError: if it is of none of the models; says what differs.
        """
        refused = []
        for model in self.models.values():
            if model.identity is None:
                model.identity = identity_of(model.pretrained)
            try:
                calibration.check(
                    model=model.identity,
                    labels=calibration.labels,
                    templates=calibration.templates,
                )
            except ValueError as error:
                refused.append(str(error))
                continue
            key = frozenset(calibration.labels), calibration.templates
            if key in model.calibrations:
                raise ValueError(f"two calibrations are of {model.name} and the same labels")
            model.calibrations[key] = calibration
            return
        raise ValueError(refused[0])

    def start(self) -> None:
        """Compiles; `ready` afterwards."""
        try:
            for model in self.models.values():
                model.start(self.ending.is_set)
            if self.index is not None:
                self.index.start(self.ending.is_set)
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
            raise
        if self.ending.is_set():
            return
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self._listening = True
        self.started = True
        self._set_ready(True)

    def stop_taking(self) -> None:
        """`ready` no more; what comes all the same is answered until `close`."""
        self._set_ready(False)

    def close(self) -> None:
        """Answers what was accepted, and ends all threads."""
        self._set_ready(False)
        self.started = False
        if self._listening:
            jax.monitoring.unregister_event_duration_listener(self._heard)
        for model in self.models.values():
            model.close()

    def model(self, name: str | None) -> ServedModel:
        """The model of that name, in any spelling of a released one's; without a name the first.

        Raises:
          ApiError: 404, with near names.
        """
        if name is None:
            name = next(iter(self.models))
        if name not in self.models:
            for each in self.models.values():
                if each.is_called(name):
                    return self.model(each.name)
            known = ", ".join(self.models)
            hint = did_you_mean(name, self.models, otherwise=f"; there is {known}")
            raise ApiError(
                404,
                f"no model is called {name[:100]!r}{hint}",
                param="model",
                code="model_not_found",
            )
        note(model=name)
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
        return await together(map(self._image, values, params))

    async def _image(self, value: str | bytes, param: str) -> bytes:
        return value if isinstance(value, bytes) else await image_bytes(value, param, self._fetch)

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.metrics.ready.set(ready)

    def _heard(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == _COMPILED and self.started:
            self.metrics.recompiles.inc()
