"""Where weights and vocabularies lie on this machine, and how they get there.

Looked at in this order: `$SIGLIP_JAX_HOME` (or `~/.cache/siglip_jax`), the cache of
huggingface_hub; then the network: the hub, and big_vision's own storage as plain
https. (`pretrained` looks for a vocabulary beside local weights before it asks here.)
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from siglip_jax.checkpoints import Checkpoint, Vocabulary

# Bytes so far and bytes in all (0 if unknown).
Progress = Callable[[int, int], None]


def home() -> Path:
    """The folder for downloads: `$SIGLIP_JAX_HOME`, or `siglip_jax` in the user's cache."""
    if folder := os.environ.get("SIGLIP_JAX_HOME"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "siglip_jax"


def offline() -> bool:
    """Whether the user asked for no network, as huggingface_hub understands it."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def locate_weights(checkpoint: Checkpoint, progress: Progress | None = None) -> Path:
    """The big_vision file of a released checkpoint, downloaded if need be.

    Raises:
      ValueError: if it is not on this machine and cannot be downloaded; the
        message names the file to fetch and where to put it.
    """
    hub = (checkpoint.hub_npz, checkpoint.file) if checkpoint.hub_npz else None
    what = f"the weight file of {checkpoint.name}"
    return _locate(what, checkpoint.file, hub, checkpoint.url, progress)


def locate_vocabulary(vocabulary: Vocabulary) -> Path:
    """The sentencepiece file of a released vocabulary, downloaded if need be.

    Raises:
      ValueError: as `locate_weights`.
    """
    what = f"the vocabulary {vocabulary.name}"
    return _locate(what, f"{vocabulary.name}.model", vocabulary.hub, vocabulary.url, None)


def _locate(
    what: str, file: str, hub: tuple[str, str] | None, url: str, progress: Progress | None
) -> Path:
    target = home() / file
    if target.is_file():
        return target
    failures = []
    if hub is not None:
        try:
            return _from_hub(*hub)
        except Exception as error:  # huggingface_hub raises a dozen unrelated types
            failures.append(first_line(error))
    try:
        return _from_storage(url, target, progress)
    except OSError as error:
        failures.append(first_line(error))
    raise ValueError(
        f"cannot find {what} on this machine, nor download it ({failures[-1]}); "
        f"fetch {url} and put it at {target}"
    )


def _from_hub(repository: str, file: str) -> Path:
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    # hf_hub_download tries for half a minute where there is no network; this, once.
    url = huggingface_hub.hf_hub_url(repository, file)
    huggingface_hub.get_hf_file_metadata(url, timeout=10)
    return Path(huggingface_hub.hf_hub_download(repository, file))


def _from_storage(url: str, target: Path, progress: Progress | None) -> Path:
    if offline():
        raise OSError("HF_HUB_OFFLINE is set")
    # Here, because they double the start-up of --help.
    import http.client
    import urllib.request

    from siglip_jax.weights.staging import staged

    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            total = int(response.headers.get("Content-Length") or 0)
            target.parent.mkdir(parents=True, exist_ok=True)
            if total and total > (free := shutil.disk_usage(target.parent).free):
                raise OSError(f"{total:,} bytes do not fit on the disk, {free:,} are free")
            with staged(target) as partial:
                _copy(response, partial, total, progress)
    except http.client.HTTPException as error:
        raise OSError(f"the download failed: {type(error).__name__} {error}") from error
    return target


def _copy(response: BinaryIO, partial: Path, total: int, progress: Progress | None) -> None:
    done = 0
    with partial.open("wb") as out:
        while block := response.read(1 << 20):
            out.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    if total and done != total:
        raise OSError(f"the download ended after {done:,} of {total:,} bytes")


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    text = str(error)
    reason = getattr(error, "reason", None)
    if isinstance(reason, OSError):  # urllib wraps what happened in angle brackets
        text = reason.strerror or str(reason)
    lines = text.strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
