"""From the name of a model to its files on this machine, downloaded if need be.

A name is that of a bundled model, a path, a repository of the Hugging Face hub, or any name of
a released checkpoint. Files are looked for in this order: `$SIGLIP_JAX_HOME` (or
`~/.cache/siglip_jax`), the cache of huggingface_hub; then the network: the hub, through
huggingface_hub with its cache, revisions and offline mode, and big_vision's own storage as
plain https.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint, Vocabulary
from siglip_jax.download import Progress, check_cached, check_sha256, download
from siglip_jax.fine_tunes import FINE_TUNES, FineTune, find_fine_tune
from siglip_jax.messages import did_you_mean, near_file, reason, suggestions

# Models that come with the package, in the format of `siglip_jax.save`.
BUNDLED = {"siglip_emoji": Path(__file__).parent / "emoji"}

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
    if there := _files(name, needed, revision):
        return there
    row = _row(os.fspath(name))
    return Files(fetch_weights(row, progress), row)


def _files(name: str | os.PathLike[str], needed: Needed, revision: str | None) -> Files | None:
    """Where a name leads to that is not, or not only, that of a released checkpoint's file."""
    path, text = Path(name).expanduser(), os.fspath(name)
    if is_path(path):
        return Files(snapshot(path, revision), None)
    if text in BUNDLED:
        return Files(BUNDLED[text], None)
    if tune := find_fine_tune(text):
        return Files(_fine_tune(tune, needed, revision), None, tune.name)
    folder = _repository(text, needed, revision)
    return None if folder is None else Files(folder, None)


def released(name: str | os.PathLike[str]) -> Checkpoint | None:
    """The row of a released checkpoint that is meant by its name, not by its files."""
    if is_path(Path(name).expanduser()):
        return None
    try:
        return checkpoints.find(os.fspath(name))
    except ValueError:
        return None  # a path, a bundled model, a repository; else the error that offers near names


def is_path(path: Path) -> bool:
    """Whether there is a file or folder, or a tensorstore checkpoint of that common name."""
    return path.exists() or path.with_name(f"{path.name}-LAST").is_file()


def snapshot(path: Path, revision: str | None = None) -> Path:
    """Of a repository's folder in the cache of huggingface_hub the files; else `path` itself.

    Args:
      path: such as `models--google--siglip2-base-patch16-224`, with `refs` and `snapshots`.
      revision: a branch, tag or commit; default: the main branch, or the only one there is.

    Raises:
      ValueError: if it has no such revision, or several and no main branch.
    """
    if not (path / "snapshots").is_dir() or not path.name.startswith("models--"):
        return path
    there = sorted(entry.name for entry in (path / "snapshots").iterdir() if entry.is_dir())
    wanted = revision or "main"
    try:
        commit = (path / "refs" / wanted).read_text("utf-8").strip()
    except OSError:
        only = there[0] if revision is None and len(there) == 1 else None
        commit = next((name for name in there if name.startswith(wanted)), only)
    if commit not in there:
        known = ", ".join(there) or "nothing"
        raise ValueError(
            f"{path} is a repository in the hub's cache without the files of {wanted!r}; "
            f"its snapshots holds {known}"
        )
    return path / "snapshots" / commit


def _repository(name: str, needed: Needed, revision: str | None) -> Path | None:
    """The folder of the hub repository `name`; None if there is another way to the model."""
    if not is_repository(name):
        return None
    try:
        row = checkpoints.find(name)
    except ValueError:
        try:
            return fetch_repository(name, needed, revision)
        except ValueError as error:
            near = [other for other in checkpoints.near_names(name) if is_repository(other)]
            hint = did_you_mean(name, near) or _file_beside(name)
            raise ValueError(f"{error}{hint}") from error
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
        own = [*BUNDLED, *(tune.name for tune in FINE_TUNES)]
        names = [*own, *checkpoints.near_names(name)]
        if set(near := suggestions(name, names)) & set(own):
            raise ValueError(f"no model is called {name!r}; did you mean {near[0]}?") from None
        if not near and (file := _file_beside(name)):
            what = f"no released checkpoint is called {name!r}, nor a file or folder here"
            raise ValueError(what + file) from None
        raise


def _file_beside(name: str) -> str:
    """The end of a message: a file or folder of a like name on this machine, if there is one."""
    path = Path(name).expanduser()
    return near_file(path) if path.parent.is_dir() else ""


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


class Fetched(NamedTuple):
    """A file that a model needs, on this machine.

    Attributes:
      what: such as "the weight file of siglip_b16_224".
      digest: that it was found to have, as the server or the hub's cache states it; None
        where none is stated, or the file was here and none was kept.
    """

    what: str
    path: Path
    digest: str | None


class _Wanted(NamedTuple):
    """A file of a release: its name in `home()`, and (repository, file) on the hub."""

    what: str
    file: str
    hub: tuple[str, str] | None
    url: str
    sha256: str | None = None

    @property
    def target(self) -> Path:
        return home() / self.file

    def here(self) -> Path | None:
        """Where it is on this machine, if it is."""
        if self.target.is_file():
            return self.target
        if self.hub is not None:
            import huggingface_hub

            cached = huggingface_hub.try_to_load_from_cache(*self.hub)
            return Path(cached) if isinstance(cached, str) else None
        return None


def _weights(checkpoint: Checkpoint) -> _Wanted:
    hub = (checkpoint.hub_npz, checkpoint.file) if checkpoint.hub_npz else None
    what = f"the weight file of {checkpoint.name}"
    return _Wanted(what, checkpoint.file, hub, checkpoint.url)


def _vocabulary(vocabulary: Vocabulary) -> _Wanted:
    what = f"the vocabulary {vocabulary.name}"
    file = f"{vocabulary.name}.model"
    return _Wanted(what, file, vocabulary.hub, vocabulary.url, vocabulary.sha256)


def fetch_weights(checkpoint: Checkpoint, progress: Progress | None = None) -> Path:
    """The big_vision file of a released checkpoint, downloaded if need be.

    Raises:
      ValueError: if it is not on this machine and cannot be downloaded; the
        message names the file to fetch and where to put it, and the vocabulary too if
        that is not here either.
    """
    return _fetched_weights(checkpoint, progress).path


def _fetched_weights(checkpoint: Checkpoint, progress: Progress | None) -> Fetched:
    wanted, vocabulary = _weights(checkpoint), _vocabulary(checkpoint.vocabulary)
    try:
        return _fetched(wanted, progress)
    except OSError as error:
        lacking = [wanted, vocabulary] if vocabulary.here() is None else [wanted]
        raise _cannot_find(lacking, error, checkpoint.name) from error


def fetch_vocabulary(vocabulary: Vocabulary) -> Path:
    """The sentencepiece file of a released vocabulary, downloaded if need be.

    Raises:
      ValueError: as `fetch_weights`.
    """
    return _fetched_vocabulary(vocabulary).path


def _fetched_vocabulary(vocabulary: Vocabulary) -> Fetched:
    wanted = _vocabulary(vocabulary)
    try:
        return _fetched(wanted)
    except OSError as error:
        raise _cannot_find([wanted], error) from error


def fetch_files(
    name: str,
    needed: Needed,
    *,
    revision: str | None = None,
    progress: Progress | None = None,
) -> list[Fetched]:
    """Brings all files of a model here: weights, configuration, vocabulary; checks digests.

    Args:
      name, needed, revision: as for `fetch_model`.
      progress: of a download: called with bytes so far and in all.

    Raises:
      ValueError: as `fetch_model`; or if a file is not what its digest says.

    >>> [file.what for file in fetch_files("siglip_emoji", sorted)][-3:]
    ['siglip_emoji.npz', 'siglip_jax.json', 'tokenizer.model']
    """
    if files := _files(name, needed, revision):
        there = files.path
        names = [] if there.is_file() else [entry.name for entry in there.iterdir()]
        paths = [there / one for one in needed(names)] if names else [there]
        found = [Fetched(path.name, path, None) for path in paths]
    else:
        row = _row(name)
        # The vocabulary last: of both, if they lack, tells the error about the weights.
        found = [_fetched_weights(row, progress), _fetched_vocabulary(row.vocabulary)]
        try:
            found[1] = _certain(found[1], _vocabulary(row.vocabulary))
        except OSError as error:
            raise ValueError(
                f"{found[1].path} was damaged: {reason(error)}; it is removed: fetch it again"
            ) from error
    return [_checked(file) for file in found]


def _checked(file: Fetched) -> Fetched:
    if file.path.is_file() and not file.path.stat().st_size:
        raise ValueError(f"{file.path} is empty; remove it, and fetch it again")
    try:
        return file._replace(digest=file.digest or check_cached(file.path))
    except OSError as error:
        raise ValueError(f"{file.path} is damaged: {reason(error)}; fetch it again") from error


def _cannot_find(lacking: Sequence[_Wanted], error: OSError, name: str = "") -> ValueError:
    them = "them" if len(lacking) > 1 else "it"
    steps = ", and ".join(f"{one.url} and put it at {one.target}" for one in lacking)
    there = f" (`siglip-jax fetch {name}` does so where there is a network)" if name else ""
    return ValueError(
        f"cannot find {' and '.join(one.what for one in lacking)} on this machine, nor download "
        f"{them} ({reason(error)}); fetch {steps}{there}"
    )


def _fetched(wanted: _Wanted, progress: Progress | None = None) -> Fetched:
    """The file, downloaded if need be. Raises an OSError if it cannot be had."""
    if here := wanted.here():
        return Fetched(wanted.what, here, None)
    if wanted.hub is not None and not offline():
        try:
            return _certain(_from_hub(wanted.what, *wanted.hub), wanted)
        except Exception:  # huggingface_hub raises a dozen unrelated types
            pass  # big_vision's own storage may have it; else that says what is wrong
    if offline():
        raise OSError("HF_HUB_OFFLINE is set")
    digest = download(wanted.url, wanted.target, progress)
    return _certain(Fetched(wanted.what, wanted.target, digest), wanted)


def _certain(file: Fetched, wanted: _Wanted) -> Fetched:
    """The file, if it is what our table says. Raises an OSError, and removes it, if it is not."""
    if wanted.sha256 is None:
        return file
    check_sha256(file.path.resolve(), wanted.sha256, "our table of released files")
    return file._replace(digest=f"sha256:{wanted.sha256}")


def _from_hub(what: str, repository: str, file: str) -> Fetched:
    import huggingface_hub

    # hf_hub_download tries for half a minute where there is no network; this, once.
    url = huggingface_hub.hf_hub_url(repository, file)
    huggingface_hub.get_hf_file_metadata(url, timeout=10)
    path = Path(huggingface_hub.hf_hub_download(repository, file))
    return Fetched(what, path, check_cached(path))
