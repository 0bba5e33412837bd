"""`load` and `save`: a model with its weights and all that its scores depend on.

A saved folder holds `siglip_jax.json` (architecture and preprocessing profile),
`weights.npz` as big_vision writes it, and `tokenizer.model`.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from siglip_jax import checkpoints
from siglip_jax.checkpoints import VOCABULARIES, Checkpoint, Vocabulary
from siglip_jax.config import Execution, Siglip, from_dict, to_dict
from siglip_jax.locate import Progress, locate_vocabulary, locate_weights
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Profile, Tokenizer, custom_profile, profile_for
from siglip_jax.scoring import REPLICATED, Scorer, sharding_of
from siglip_jax.scoring.sharding import Mesh, Rules
from siglip_jax.weights.architecture import config_from_shapes
from siglip_jax.weights.load import load_params
from siglip_jax.weights.save import save_params
from siglip_jax.weights.source import open_source

CARD = "siglip_jax.json"
_WEIGHTS, _TOKENIZER = "weights.npz", "tokenizer.model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What `load` returns.

    Attributes:
      name: the checkpoint's name, or the path it came from.
      model: the Flax module; `model.apply({"params": params}, image, text)`.
      params: big_vision's tree of weights, on devices.
      profile: the preprocessing that belongs to it.
      checkpoint: the row of the table, if it is a released one.
      vocabulary: path of the sentencepiece file, if one was named or lies
        beside the weights; else it is looked for when first needed.
    """

    name: str
    model: SiglipModel
    params: Any
    profile: Profile
    checkpoint: Checkpoint | None = None
    vocabulary: Path | None = None
    mesh: Mesh | None = None
    rules: Rules = REPLICATED

    @property
    def config(self) -> Siglip:
        return self.model.config

    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
          ValueError: if its vocabulary is nowhere to be found, or another model's.
        """
        path = self.vocabulary
        if path is None:
            name = self.profile.text.vocabulary
            if name is None:
                raise ValueError(f"{self.name} does not say which vocabulary it needs; name a file")
            path = locate_vocabulary(VOCABULARIES[name])
        return Tokenizer(path, self.profile.text)

    def scorer(self, *, tokenizer: bool = True, **kw: Any) -> Scorer:
        """A `Scorer` for this model; `kw` as for `Scorer`.

        `tokenizer=False` leaves the vocabulary alone, for images only.
        """
        if tokenizer:
            kw.setdefault("tokenizer", self.tokenizer())
        kw = {"profile": self.profile, "mesh": self.mesh, "rules": self.rules, **kw}
        return Scorer(self.model, self.params, **kw)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Where a model lies and what it is, before any weight is read."""

    name: str
    weights: Path | str
    config: Siglip
    profile: Profile
    checkpoint: Checkpoint | None
    vocabulary: Path | None


def load(
    name: str | os.PathLike[str],
    *,
    profile: str = "big_vision",
    res: int | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    config: Siglip | None = None,
    execution: Execution | None = None,
    dtype: str | None = None,
    mesh: Mesh | None = None,
    rules: Rules = REPLICATED,
    progress: Progress | None = None,
) -> Pretrained:
    """Loads a released checkpoint by any of its names, or a local file or folder.

    Args:
      name: `siglip_b16_224`, `ViT-B-16-SigLIP`, `google/siglip2-base-patch16-naflex`,
        ...; a big_vision `.npz` or tensorstore folder; a folder written by `save`.
      profile: "big_vision", "transformers" or "open_clip". A saved folder brings
        its own, which this does not replace.
      res: run a fixed-resolution model at another resolution: its position
        embedding is resampled as big_vision does.
      vocabulary: sentencepiece file, if it is not where it is looked for.
      config: the architecture of a local file that is no released one.
      execution: dtype, scan, remat, attention (`Execution`).
      dtype: store the weights in this dtype; None leaves them as they are.
      mesh, rules: where weights go (`make_mesh`, `FSDP`); one device unless given.
      progress: called with bytes read so far and in all.

    Raises:
      ValueError: if there is no such checkpoint (near names are offered), it
        cannot be had, or it does not fit its architecture.
    """
    found = find_model(name, profile=profile, vocabulary=vocabulary, config=config, res=res)
    config, execution = found.config, execution or Execution()
    place = sharding_of(mesh, rules) if mesh is not None else None
    params = load_params(
        found.weights,
        config,
        scan_image=execution.scan_image,
        scan_text=execution.scan_text,
        resize_posemb=res is not None,
        dtype=dtype,
        sharding=place,
        progress=progress,
    )
    return Pretrained(
        name=found.name,
        model=SiglipModel(config, execution),
        params=params,
        profile=found.profile,
        checkpoint=found.checkpoint,
        vocabulary=found.vocabulary,
        mesh=mesh,
        rules=rules,
    )


def find_model(
    name: str | os.PathLike[str],
    *,
    profile: str = "big_vision",
    vocabulary: str | os.PathLike[str] | None = None,
    config: Siglip | None = None,
    res: int | None = None,
    progress: Progress | None = None,
) -> Found:
    """What `load` would load. Reads headers only; downloads what is not here."""
    path = Path(name).expanduser()
    file = Path(vocabulary).expanduser() if vocabulary is not None else None
    if (path / CARD).is_file():
        found = _read_card(path, file)
    elif path.exists() or path.with_name(f"{path.name}-LAST").is_file():
        if path.is_dir() and len(inside := list(path.glob("*.npz"))) == 1:
            path = inside[0]
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


def _released(
    name: str | os.PathLike[str], profile: str, vocabulary: Path | None, progress: Progress | None
) -> Found:
    try:
        checkpoint = checkpoints.find(os.fspath(name))
    except ValueError:
        # Something that looks like a path is one: say what lies near it instead.
        if os.fspath(name).endswith((".npz", "/")) or os.fspath(name).startswith((".", "/", "~")):
            open_source(Path(name).expanduser()).close()
        raise
    chosen = profile_for(checkpoint, profile)
    return Found(
        name=checkpoint.name,
        weights=locate_weights(checkpoint, progress),
        config=checkpoint.config,
        profile=chosen,
        checkpoint=checkpoint,
        vocabulary=vocabulary,
    )


def _recognise(
    path: Path, profile: str, vocabulary: Path | None, config: Siglip | None, res: int | None
) -> Found:
    """A bare checkpoint: its name or its shapes say what it is."""
    if config is None:
        with open_source(path) as reader:
            shapes = {key: header.shape for key, header in reader.shapes.items()}
        config = _config(path, shapes, res)
    row = next((c for c in checkpoints.CHECKPOINTS if c.config == config), None)
    known = row.vocabulary if row else _vocabulary(config)
    beside = path.parent
    if vocabulary is None and known is not None:
        vocabulary = _beside(known, beside)
    if row is not None:
        chosen = profile_for(row, profile)
    elif known is not None:
        chosen = custom_profile(config, known.pad, profile, known.name)
    else:
        raise ValueError(
            f"{path}: a token embedding of {config.text.vocab_size} rows belongs to no released "
            "vocabulary, so how its texts are padded is unknown; save the model as a folder "
            "with its profile (siglip_jax.save) and load that"
        )
    return Found(
        name=row.name if row else str(path),
        weights=path,
        config=config,
        profile=chosen,
        checkpoint=row,
        vocabulary=vocabulary,
    )


def _config(path: Path, shapes: dict[str, tuple[int, ...]], res: int | None) -> Siglip:
    try:
        # A released file keeps its name: then its row is what it must fit, tensor by tensor.
        return checkpoints.find(path.name).config
    except ValueError:
        pass
    try:
        return config_from_shapes(shapes)
    except ValueError as error:
        if res is None:
            raise ValueError(f"{path}: {error}") from error
        return config_from_shapes(shapes, res=res)


def _vocabulary(config: Siglip) -> Vocabulary | None:
    rows = config.text.vocab_size
    return next((v for v in VOCABULARIES.values() if v.rows == rows), None)


def _beside(vocabulary: Vocabulary, folder: Path) -> Path | None:
    names = (f"{vocabulary.name}.model", _TOKENIZER, "spiece.model", "sentencepiece.model")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_card(folder: Path, vocabulary: Path | None) -> Found:
    try:
        card = json.loads((folder / CARD).read_text())
        config, profile = from_dict(card["config"]), Profile.from_dict(card["profile"])
        weights, name = folder / card["weights"], card["name"]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{folder / CARD}: {reason}") from error
    if vocabulary is None and (folder / _TOKENIZER).is_file():
        vocabulary = folder / _TOKENIZER
    row = next((c for c in checkpoints.CHECKPOINTS if c.name == name), None)
    return Found(
        name=str(name),
        weights=weights,
        config=config,
        profile=profile,
        checkpoint=row if row and row.config == config else None,
        vocabulary=vocabulary,
    )


def save(
    folder: str | os.PathLike[str],
    model: SiglipModel,
    params: Any,
    *,
    profile: Profile,
    vocabulary: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> Path:
    """Writes a folder that `load` takes; appears whole or not at all.

    Args:
      folder: must not exist yet.
      model, params, profile: what to save; weights are written in the form they have.
      vocabulary: sentencepiece file to put beside them.
      name: what to call it, the folder's name unless given.

    Raises:
      ValueError: if `folder` exists, or the vocabulary is not the profile's.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists already; choose another name or remove it")
    if vocabulary is not None:
        Tokenizer(vocabulary, profile.text)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        card = {
            "name": name or folder.name,
            "config": to_dict(model.config),
            "profile": profile.to_dict(),
            "weights": _WEIGHTS,
        }
        (partial / CARD).write_text(json.dumps(card, indent=1) + "\n")
        save_params(partial / _WEIGHTS, params)
        if vocabulary is not None:
            shutil.copyfile(vocabulary, partial / _TOKENIZER)
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder
