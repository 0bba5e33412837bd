"""A model that is named where work is planned, and loaded where it is done, once a process."""

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siglip_jax.data.failures import SettingError
from siglip_jax.fetch import BUNDLED, is_path

if TYPE_CHECKING:
    from siglip_jax.pretrained import Pretrained
    from siglip_jax.scoring import Scorer

# Engines may call from several threads, and two loads at a time would take twice the memory.
_loading = threading.Lock()
_loaded_in: int | None = None


class WorkerModel(NamedTuple):
    """What a worker loads, and how it runs it; can be pickled and compared.

    Attributes:
      model: what `siglip_jax.load` takes, to be had on every worker.
      batch_size: examples a step over the devices that the worker has; default: 32 on a CPU,
        256 on each other device. Batches of an engine should be a multiple of it.
      threads: that decode images.
      options: of `siglip_jax.load`, sorted by name.

    >>> WorkerModel("siglip_emoji").scorer(texts=False).batch_size >= 32
    True
    """

    model: str
    batch_size: int | None = None
    threads: int | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        model: str | os.PathLike[str],
        batch_size: int | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> "WorkerModel":
        """Raises a ValueError for a loaded model, or an option that there is not."""
        if not isinstance(model, str | os.PathLike):
            name = getattr(model, "name", None)
            advice = f"; give its name, {name!r}" if isinstance(name, str) else ""
            raise ValueError(
                "model must be a name or a path, which each worker loads for itself, got "
                f"{type(model).__name__}{advice}"
            )
        name = os.fspath(model)
        if name not in BUNDLED and is_path(path := Path(name).expanduser()):
            name = os.fspath(path.absolute())  # workers have working folders of their own
        return cls(name, batch_size, threads, tuple(sorted(options.items())))

    def scorer(self, *, texts: bool) -> "Scorer":
        """The model on all devices that this process has; loaded by the first call.

        Args:
          texts: whether the vocabulary is needed.

        Raises:
          ValueError: one line that names this host, if the model cannot be loaded here; or if
            this process was forked from one that has loaded a model.
        """
        with loading(self.model):
            return _scorer(self, texts)

    def pretrained(self) -> "Pretrained":
        """The model on all devices that this process has; to be called while `loading`."""
        return _pretrained(self.model, self.options)

    def out_of_memory(self, error: Exception) -> ValueError | None:
        """As the function of this name."""
        return out_of_memory(error, self.batch_size)


@contextlib.contextmanager
def loading(model: str) -> Generator[None, None, None]:
    """Whatever keeps a model from being loaded here is one line that names this host.

    Raises:
      ValueError: as `WorkerModel.scorer`.
    """
    global _loaded_in
    with _loading:
        if _loaded_in not in (None, os.getpid()):
            raise ValueError(
                "this process was forked from one that has loaded a model, where jax hangs; "
                "call nothing of siglip_jax.batch before the workers start, or start them with "
                "spawn"
            )
        _loaded_in = os.getpid()
        try:
            yield
        # A worker's files differ from another's, and not every error can be pickled.
        except (ValueError, OSError, TypeError) as error:
            raise ValueError(
                f"{model} cannot be loaded on the worker {socket.gethostname()}: "
                f"{' '.join(str(error).split())}"
            ) from error


def out_of_memory(error: Exception, batch_size: int | None) -> ValueError | None:
    """One line instead of XLA's pages, if a batch did not fit on the device.

    >>> out_of_memory(RuntimeError("no device"), None)
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    size = "the default" if batch_size is None else f"{batch_size:,}"
    return SettingError(
        f"out of memory on the worker {socket.gethostname()}",
        "batch_size",
        f"a smaller {{}} than {size} needs less",
    )


# Two: embedders of images and of texts in one process, say, or a model after another.
@functools.lru_cache(maxsize=2)
def _pretrained(model: str, options: tuple[tuple[str, Any], ...]) -> "Pretrained":
    import jax

    from siglip_jax.pretrained import load
    from siglip_jax.programs import make_mesh

    # An engine gives each worker devices of its own, which are all that jax sees there.
    mesh = make_mesh(jax.local_devices())
    return load(model, mesh=mesh, **dict(options))


@functools.lru_cache(maxsize=4)
def _scorer(of: WorkerModel, texts: bool) -> "Scorer":
    import jax

    from siglip_jax.scoring.batches import usual_batch_size

    model = _pretrained(of.model, of.options)
    size = of.batch_size or usual_batch_size(jax.local_devices())
    sizes = {"batch_size": size, "text_batch_size": size}
    # Engines may call from several threads.
    return model.scorer(tokenizer=texts, workers=of.threads, several_threads=True, **sizes)
