"""From the name of a model to its files on this machine, downloaded if need be.

A name is that of a bundled model, a path, a repository of the Hugging Face hub, or any name of
a released checkpoint. Files are looked for in this order: `$SIGLIP_JAX_HOME` (or
`~/.cache/siglip_jax`), the cache of huggingface_hub; then the network: the hub, through
huggingface_hub with its cache, revisions and offline mode, and big_vision's own storage as
plain https.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint, Vocabulary
from siglip_jax.fine_tunes import FINE_TUNES, FineTune, find_fine_tune
from siglip_jax.messages import reason, suggestions

# Models that come with the package, in the format of `siglip_jax.save`.
BUNDLED = {"siglip_emoji": Path(__file__).parent / "emoji"}

# Bytes so far and bytes in all (0 if unknown).
Progress = Callable[[int, int], None]


# From the names of a repository's files to those that a model needs.
Needed = Callable[[Iterable[str]], list[str]]

_FILES = (".npz", ".safetensors", ".json", ".bin", ".pt", ".pth")


class Files(NamedTuple):
    """Where a name leads to.

    `checkpoint` is its row, if it is a released one's file; `fine_tune` its name, if it is one
    of `FINE_TUNES`.
    """

    path: Path
    checkpoint: Checkpoint | None
    fine_tune: str | None = None


def fetch_model(
    name: str | os.PathLike[str],
    needed: Needed,
    *,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Files:
    """The file or folder that a name leads to.

    Args:
      name: a path, or any name.
      needed: which files of a repository to fetch (`converters.needed_files`).
      revision: of a hub repository: a branch, tag or commit; the main branch unless given.

    Raises:
      ValueError: if it is neither a path nor a name (near ones are offered), or cannot
        be had.
    """
    path, text = Path(name).expanduser(), os.fspath(name)
    if is_path(path):
        return Files(path, None)
    if text in BUNDLED:
        return Files(BUNDLED[text], None)
    if tune := find_fine_tune(text):
        return Files(_fine_tune(tune, needed, revision), None, tune.name)
    if folder := _repository(text, needed, revision):
        return Files(folder, None)
    row = _row(text)
    return Files(fetch_weights(row, progress), row)


def is_path(path: Path) -> bool:
    """Whether there is a file or folder, or a tensorstore checkpoint of that common name."""
    return path.exists() or path.with_name(f"{path.name}-LAST").is_file()


def _repository(name: str, needed: Needed, revision: str | None) -> Path | None:
    """The folder of the hub repository `name`; None if there is another way to the model."""
    if not is_repository(name):
        return None
    try:
        row = checkpoints.find(name)
    except ValueError:
        return fetch_repository(name, needed, revision)
    if revision is None and (home() / row.file).is_file():
        return None
    try:
        return fetch_repository(name, needed, revision)
    except ValueError:
        if revision is not None:
            raise
        return None  # big_vision's own storage may have it


def _fine_tune(tune: FineTune, needed: Needed, revision: str | None) -> Path:
    try:
        return fetch_repository(tune.hf, needed, revision)
    except ValueError as error:
        if not tune.gated:
            raise
        raise ValueError(
            f"{error}; it asks to accept its licence ({tune.licence}) at "
            f"https://huggingface.co/{tune.hf} first, and to log in"
        ) from error


def _row(name: str) -> Checkpoint:
    try:
        return checkpoints.find(name)
    except ValueError:
        if looks_like_a_path(name):
            from siglip_jax.weights.big_vision import open_big_vision

            # Say what lies near it instead.
            open_big_vision(Path(name).expanduser()).close()
        tunes = [*BUNDLED, *(tune.name for tune in FINE_TUNES)]
        names = [*tunes, *(row.name for row in checkpoints.CHECKPOINTS)]
        if set((near := suggestions(name, names))[:1]) & set(tunes):
            raise ValueError(f"no model is called {name!r}; did you mean {near[0]}?") from None
        raise


def looks_like_a_path(name: str) -> bool:
    """Whether `name` is meant as a path, even if there is nothing."""
    return name.endswith((".npz", ".safetensors", "/")) or name.startswith((".", "/", "~"))


def is_repository(name: str) -> bool:
    """Whether `name` looks like `owner/name` on the hub.

    >>> is_repository("timm/ViT-B-16-SigLIP"), is_repository("runs/model.npz")
    (True, False)
    """
    plain = name.removeprefix("hf-hub:")
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", plain)) and not plain.endswith(_FILES)


def fetch_repository(name: str, needed: Needed, revision: str | None = None) -> Path:
    """The folder of a hub repository's needed files, downloaded if need be.

    Raises:
      ValueError: if it is not on this machine and cannot be downloaded, or holds no
        weights of a known format.
    """
    import huggingface_hub

    repository = name.removeprefix("hf-hub:")
    options: dict[str, Any] = {"local_files_only": True}
    why = "HF_HUB_OFFLINE is set"
    if not offline():
        try:
            # Once, with a limit: snapshot_download tries for half a minute without a network.
            info = huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=10)
        except Exception as error:  # huggingface_hub raises a dozen unrelated types
            why = reason(error)
        else:
            try:
                names = needed(file.rfilename for file in info.siblings or ())
            except ValueError as error:
                raise ValueError(f"{repository}: {error}") from error
            options, why = {"allow_patterns": names}, ""
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, **options))
    except Exception as error:
        raise ValueError(
            f"the hub repository {repository} is not on this machine and could not be "
            f"downloaded ({why or reason(error)})"
        ) from error


def home() -> Path:
    """The folder for downloads: `$SIGLIP_JAX_HOME`, or `siglip_jax` in the user's cache."""
    if folder := os.environ.get("SIGLIP_JAX_HOME"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "siglip_jax"


def offline() -> bool:
    """Whether the user asked for no network, as huggingface_hub understands it."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def fetch_weights(checkpoint: Checkpoint, progress: Progress | None = None) -> Path:
    """The big_vision file of a released checkpoint, downloaded if need be.

    Raises:
      ValueError: if it is not on this machine and cannot be downloaded; the
        message names the file to fetch and where to put it.
    """
    hub = (checkpoint.hub_npz, checkpoint.file) if checkpoint.hub_npz else None
    what = f"the weight file of {checkpoint.name}"
    return _cached_file(what, checkpoint.file, hub, checkpoint.url, progress)


def fetch_vocabulary(vocabulary: Vocabulary) -> Path:
    """The sentencepiece file of a released vocabulary, downloaded if need be.

    Raises:
      ValueError: as `fetch_weights`.
    """
    what = f"the vocabulary {vocabulary.name}"
    return _cached_file(what, f"{vocabulary.name}.model", vocabulary.hub, vocabulary.url, None)


def _cached_file(
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
            failures.append(reason(error))
    try:
        return _from_storage(url, target, progress)
    except OSError as error:
        failures.append(reason(error))
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
