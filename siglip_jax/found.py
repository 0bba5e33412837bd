"""What `load` would load: where a model lies, in which format, and what it is.

Headers and small files are read, never weights, and nothing here imports jax.
"""

import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint
from siglip_jax.config import Siglip, from_dict
from siglip_jax.hub import is_repository, locate_repository
from siglip_jax.locate import Progress, home, locate_weights
from siglip_jax.preprocessing import Profile, custom_profile, profile_for
from siglip_jax.weights.reader import Reader
from siglip_jax.weights.source import open_source

CARD, TOKENIZER = "siglip_jax.json", "tokenizer.model"

# Models that come with the package, in the format of `save`.
BOX = {"siglip_emoji": Path(__file__).parent / "emoji"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Where a model lies and what it is, before any weight is read.

    Attributes:
      name: the checkpoint's name, or the path it came from.
      weights: file or folder, as `open` opens it.
      config: the architecture. Of a single tower, the other is a placeholder.
      profile: the preprocessing that belongs to it.
      checkpoint: the row of the table, if it is a released one.
      vocabulary: sentencepiece file that was named or lies beside the weights.
      tower: "image" or "text", if it is one tower alone.
      open: opens the weights under big_vision's names.
      notes: what another system does differently with its own copy, a line each.
    """

    name: str
    weights: Path | str
    config: Siglip
    profile: Profile
    checkpoint: Checkpoint | None
    vocabulary: Path | None
    open: Callable[[], Reader]
    tower: str | None = None
    notes: tuple[str, ...] = ()


def find_model(
    name: str | os.PathLike[str],
    *,
    profile: str | Profile = "big_vision",
    vocabulary: str | os.PathLike[str] | None = None,
    config: Siglip | None = None,
    res: int | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Found:
    """What `load` would load. Reads headers only; downloads what is not here."""
    path = _boxed(Path(name).expanduser())
    file = Path(vocabulary).expanduser() if vocabulary is not None else None
    if not _is_path(path):
        path = _repository(os.fspath(name), revision) or path
    if (path / CARD).is_file():
        found = _read_card(path, file)
    elif _is_path(path):
        found = _recognise(path, profile, file, config, res)
    else:
        found = _released(name, profile, file, progress)
    if res is None or res == getattr(found.config.vision, "res", None):
        return found
    image = dataclasses.replace(found.profile.image, res=res)
    return dataclasses.replace(
        found,
        config=found.config.at_resolution(res),
        profile=dataclasses.replace(found.profile, image=image),
    )


def find_path(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Where `load` would read `name` from; downloads what is not here.

    Raises:
      ValueError: if it is neither a path nor a name (near ones are offered), or cannot
        be had.
    """
    path = _boxed(Path(name).expanduser())
    if _is_path(path):
        return path
    return _repository(os.fspath(name), revision) or locate_weights(_row(name), progress)


def _boxed(path: Path) -> Path:
    """Where a model that comes with the package lies; any other path as it is."""
    return path if _is_path(path) else BOX.get(os.fspath(path), path)


def _is_path(path: Path) -> bool:
    return path.exists() or path.with_name(f"{path.name}-LAST").is_file()


def _repository(name: str, revision: str | None) -> Path | None:
    """The folder of the hub repository `name`; None if there is another way to the model."""
    if not is_repository(name):
        return None
    try:
        row = checkpoints.find(name)
    except ValueError:
        return locate_repository(name, revision)
    if revision is None and (home() / row.file).is_file():
        return None
    try:
        return locate_repository(name, revision)
    except ValueError:
        if revision is not None:
            raise
        return None  # big_vision's own storage may have it


def _row(name: str | os.PathLike[str]) -> Checkpoint:
    try:
        return checkpoints.find(os.fspath(name))
    except ValueError:
        # Something that looks like a path is one: say what lies near it instead.
        text = os.fspath(name)
        if text.endswith((".npz", ".safetensors", "/")) or text.startswith((".", "/", "~")):
            open_source(Path(name).expanduser()).close()
        if near := difflib.get_close_matches(text, BOX, n=1, cutoff=0.8):
            raise ValueError(f"no model is called {text!r}; did you mean {near[0]}?") from None
        raise


def _released(
    name: str | os.PathLike[str],
    profile: str | Profile,
    vocabulary: Path | None,
    progress: Progress | None,
) -> Found:
    checkpoint = _row(name)
    chosen = _profile(checkpoint, profile)
    weights = locate_weights(checkpoint, progress)
    return Found(
        name=checkpoint.name,
        weights=weights,
        config=checkpoint.config,
        profile=chosen,
        checkpoint=checkpoint,
        vocabulary=vocabulary,
        open=functools.partial(open_source, weights),
    )


def _profile(checkpoint: Checkpoint, profile: str | Profile) -> Profile:
    return profile if isinstance(profile, Profile) else profile_for(checkpoint, profile)


def _recognise(
    path: Path,
    profile: str | Profile,
    vocabulary: Path | None,
    config: Siglip | None,
    res: int | None,
) -> Found:
    """Weights of any format: configuration, name or shapes say what they are."""
    from siglip_jax.converters import open_checkpoint
    from siglip_jax.converters.source import released_vocabulary

    with open_checkpoint(path, config=config, res=res) as source:
        row, known = source.checkpoint, released_vocabulary(source.config)
    if isinstance(profile, Profile):
        chosen = profile
    elif row is not None:
        chosen = profile_for(row, profile)
    elif source.pad is not None or (source.tower == "image" and profile != "transformers"):
        # What pads texts tells SigLIP from SigLIP 2, whose images only transformers
        # prepares in two ways.
        name = known.name if known and known.pad == source.pad else None
        chosen = custom_profile(source.config, source.pad or 0, profile, name)
    elif source.tower == "image":
        raise ValueError(
            f"{path} does not say whether it is a SigLIP or a SigLIP 2, whose images transformers "
            "prepares differently; pass a Profile (siglip_jax.preprocessing.custom_profile)"
        )
    else:
        raise ValueError(
            f"{path}: a token embedding of {source.config.text.vocab_size} rows belongs to no "
            "released vocabulary, so how its texts are padded is unknown; pass a Profile "
            "(siglip_jax.preprocessing.custom_profile), or save the model as a folder "
            "with its profile (siglip_jax.save) and load that"
        )
    return Found(
        name=row.name if row else str(path),
        weights=path,
        config=source.config,
        profile=chosen,
        checkpoint=row,
        vocabulary=vocabulary or source.vocabulary,
        open=lambda: open_checkpoint(path, config=config, res=res).reader,
        tower=source.tower,
        # Released weights were trained with what siglip_jax computes, whatever a copy says.
        notes=() if row else source.notes,
    )


def _read_card(folder: Path, vocabulary: Path | None) -> Found:
    try:
        card = json.loads((folder / CARD).read_text())
        config, profile = from_dict(card["config"]), Profile.from_dict(card["profile"])
        weights, name = folder / card["weights"], card["name"]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{folder / CARD}: {reason}") from error
    if vocabulary is None and (folder / TOKENIZER).is_file():
        vocabulary = folder / TOKENIZER
    row = next((c for c in checkpoints.CHECKPOINTS if c.name == name), None)
    return Found(
        name=str(name),
        weights=weights,
        config=config,
        profile=profile,
        checkpoint=row if row and row.config == config else None,
        vocabulary=vocabulary,
        open=functools.partial(_open_file, weights),
        tower=card.get("tower"),
    )


def _open_file(path: Path) -> Reader:
    from siglip_jax.converters.files import open_file

    return open_file(path)
