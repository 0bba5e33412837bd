"""Where weights and vocabularies lie on this machine, and how they get there.

Looked at in this order: the folder of the weights themselves (vocabularies only),
`$SIGLIP_JAX_HOME` (or `~/.cache/siglip_jax`), the cache of huggingface_hub; then
the network: the hub, and big_vision's own storage as plain https.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from siglip_jax.checkpoints import Checkpoint, Vocabulary

# Bytes so far and bytes in all (0 if unknown).
Progress = Callable[[int, int], None]
_TOKENIZER_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.model")


def home() -> Path:
    """The folder for downloads: `$SIGLIP_JAX_HOME`, or `siglip_jax` in the user's cache."""
    if folder := os.environ.get("SIGLIP_JAX_HOME"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "siglip_jax"


def locate_weights(checkpoint: Checkpoint, progress: Progress | None = None) -> Path:
    """The big_vision file of a released checkpoint, downloaded if need be.

    Raises:
      ValueError: if it is not on this machine and cannot be downloaded; the
        message names the file to fetch and where to put it.
    """
    hub = (checkpoint.hub_npz, checkpoint.file) if checkpoint.hub_npz else None
    what = f"the weights of {checkpoint.name}"
    return _locate(what, checkpoint.file, hub, checkpoint.url, progress)


def locate_vocabulary(vocabulary: Vocabulary, beside: Path | None = None) -> Path:
    """The sentencepiece file of a released vocabulary, downloaded if need be.

    Args:
      vocabulary: which one.
      beside: a folder to look in first, that of the weights.

    Raises:
      ValueError: as `locate_weights`.
    """
    file = f"{vocabulary.name}.model"
    names = (file, *_TOKENIZER_FILES, vocabulary.hub[1], vocabulary.url.rpartition("/")[2])
    for name in names if beside else ():
        if (beside / name).is_file():
            return beside / name
    what = f"the vocabulary {vocabulary.name}"
    return _locate(what, file, vocabulary.hub, vocabulary.url, None)


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
            failures.append(_first_line(error))
    try:
        return _from_storage(url, target, progress)
    except OSError as error:
        failures.append(_first_line(error))
    raise ValueError(
        f"{what} are not on this machine and could not be downloaded ({failures[-1]}); "
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
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise OSError("HF_HUB_OFFLINE is set")
    import urllib.request  # here, because it doubles the start-up of --help

    with urllib.request.urlopen(url, timeout=20) as response:
        total = int(response.headers.get("Content-Length") or 0)
        target.parent.mkdir(parents=True, exist_ok=True)
        if total and total > (free := shutil.disk_usage(target.parent).free):
            raise OSError(f"{total:,} bytes do not fit on the disk, {free:,} are free")
        # A name of its own, so that two downloads do not write into each other.
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            done = 0
            with os.fdopen(handle, "wb") as out:
                while block := response.read(1 << 20):
                    out.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, total)
            if total and done != total:
                raise OSError(f"the download ended after {done:,} of {total:,} bytes")
            Path(partial).replace(target)
        finally:
            Path(partial).unlink(missing_ok=True)
    return target


def _first_line(error: Exception) -> str:
    reason = str(error).strip().splitlines()
    return reason[0].rstrip(".") if reason else type(error).__name__
