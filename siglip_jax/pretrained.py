"""`load` and `save`: a model with its weights and all that its scores depend on.

Weights may be in any format of `siglip_jax.converters`; what comes out is big_vision's
tree. A saved folder holds `siglip_jax.json` (architecture and preprocessing profile),
`weights.safetensors` under big_vision's names, and `tokenizer.model`.
"""

import contextlib
import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.checkpoints import VOCABULARIES, Checkpoint
from siglip_jax.classifier import Classifier
from siglip_jax.config import Execution, Siglip, Tower
from siglip_jax.converters import OpenCheckpoint
from siglip_jax.errors import ModelError
from siglip_jax.fetch import Progress, fetch_vocabulary
from siglip_jax.model_files import open_model
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Profile, Tokenizer
from siglip_jax.programs import REPLICATED, sharding_of
from siglip_jax.programs.sharding import Mesh, Rules
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.summary import Summary, towers
from siglip_jax.weights.load import load_params
from siglip_jax.weights.reader import Header
from siglip_jax.weights.save import on_host
from siglip_jax.weights.staging import staged
from siglip_jax.weights.tree import flatten


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Pretrained:
    """What `load` returns.

    Attributes:
      name: the checkpoint's name, or the path it came from.
      model: the Flax module; `model.apply({"params": params}, image, text)`. Of one tower
        alone, the other is None in its configuration and not given.
      params: big_vision's tree of weights, on devices.
      profile: the preprocessing that belongs to it.
      checkpoint: the row of the table, if it is a released one.
      vocabulary: path of the sentencepiece file, if one was named or lies
        beside the weights; else it is looked for when first needed.
      classifier: of a fine-tune that tells classes apart, for `Scorer.classify`.
    """

    name: str
    model: SiglipModel
    params: Any
    profile: Profile
    checkpoint: Checkpoint | None = None
    vocabulary: Path | None = None
    classifier: Classifier | None = None
    mesh: Mesh | None = None
    rules: Rules = REPLICATED

    def __repr__(self) -> str:
        """A few lines: neither weights nor the tree of modules."""
        return self._summary().text()

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return self._summary().html()

    def _summary(self) -> Summary:
        leaves = flatten(self.params).values()
        count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
        dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))
        facts = [*towers(self.config), ("profile", self.profile.name)]
        facts += [("vocabulary", self.vocabulary)] if self.vocabulary is not None else []
        facts += [("devices", self.mesh.size)] if self.mesh is not None else []
        return Summary(f"Pretrained {self.name}: {count:,} parameters, {dtypes}", facts)

    @property
    def config(self) -> Siglip:
        """The architecture."""
        return self.model.config

    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
          ValueError: if its vocabulary is nowhere to be found, or another model's, or this is
            an image tower alone.
        """
        self.config.needs("text", what="texts", name=self.name)
        path = self.vocabulary
        if path is None:
            name = self.profile.text.vocabulary
            if name is None:
                raise ModelError(
                    f"{self.name} does not say which vocabulary it needs",
                    needs="vocabulary",
                    advice="name a file",
                )
            path = fetch_vocabulary(VOCABULARIES[name])
        return Tokenizer(path, self.profile.text)

    def scorer(self, *, tokenizer: bool = True, **kw: Any) -> Scorer:
        """A `Scorer` for this model; `kw` as for `Scorer`.

        `tokenizer=False` leaves the vocabulary alone, for images only. One tower alone makes
        a scorer that embeds, and says what it lacks when it is asked for more.
        """
        if tokenizer and self.config.text is not None:
            kw.setdefault("tokenizer", self.tokenizer())
        kw = {
            "classifier": self.classifier,
            "profile": self.profile,
            "mesh": self.mesh,
            "rules": self.rules,
            **kw,
        }
        return Scorer(self.model, self.params, **kw)


def load(
    name: str | os.PathLike[str] | OpenCheckpoint,
    *,
    profile: str | Profile | None = None,
    res: int | None = None,
    tower: Tower | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    config: Siglip | None = None,
    base: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    execution: Execution | None = None,
    dtype: str | None = None,
    mesh: Mesh | None = None,
    rules: Rules = REPLICATED,
    progress: Progress | None = None,
) -> Pretrained:
    """Loads a released checkpoint by any of its names, a hub repository, or local weights.

    Args:
      name: `siglip_b16_224`, `ViT-B-16-SigLIP`, `google/siglip2-base-patch16-naflex`,
        ...; any hub repository in such a format; a file or folder in any format of
        `siglip_jax.converters`, or written by `save`; or what `open_model` returned, which
        is left open.
      profile: "big_vision", "transformers", "open_clip"; "folder", what the folder's own
        files say (`preprocessor_config.json`, `preprocess_cfg`, `pretrained_cfg`, or a
        profile that `save` wrote); or a `Profile` of your own. None is "folder" where
        these are not the settings of the released weights, else "big_vision". One
        warning names the folder's settings that differ from the released ones and are
        followed unasked, or that the profile asked for leaves aside.
      res: run a fixed-resolution model at another resolution: its position
        embedding is resampled as big_vision does.
      tower: "image" or "text", to load that one alone.
      vocabulary: sentencepiece file, if it is not where it is looked for.
      config: the architecture of local weights that do not say it.
      base: the model that a PEFT adapter is of, by any name: `name` is merged into it.
      revision: of a hub repository: a branch, tag or commit.
      execution: dtype, weights, scan, remat, attention (`Execution`).
      dtype: store all parameters in this dtype; None leaves them as they are, or as
        `execution.weights` says.
      mesh, rules: where weights go (`make_mesh`, `FSDP`); one device unless given.
      progress: called with bytes read so far and in all.

    Raises:
      ValueError: if there is no such checkpoint (near names are offered), it
        cannot be had, or it does not fit its architecture.

    See `save` for an example with weights.

    >>> load("ViT-B-16-SigLP")
    Traceback (most recent call last):
      ...
    ValueError: no released checkpoint is called 'ViT-B-16-SigLP'; did you mean ViT-B-16-SigLIP...
    """
    execution = execution or Execution()
    if dtype is not None and execution.weights is not None:
        raise ValueError(
            f"dtype={dtype!r} and execution.weights={execution.weights!r} both say how to store "
            "the weights; give one of them"
        )
    opened = open_model(
        name,
        config=config,
        res=res,
        tower=tower,
        vocabulary=vocabulary,
        base=base,
        revision=revision,
        progress=progress,
    )
    with contextlib.nullcontext() if isinstance(name, OpenCheckpoint) else opened:
        # Released weights were trained with what siglip_jax computes, whatever a copy says.
        notes = opened.notes if opened.checkpoint is None else ()
        for note in (*opened.reports, *notes):
            warnings.warn(f"{opened.name}: {note}", stacklevel=2)
        if note := opened.profile_note(profile):
            warnings.warn(f"{opened.name}: {note}", stacklevel=2)
        chosen = opened.profile_named(profile, res=res)
        config = opened.config_at(res)
        params = load_params(
            opened.reader,
            config,
            scan_image=execution.scan_image,
            scan_text=execution.scan_text,
            resize_posemb=res is not None,
            dtype=dtype,
            weights=execution.weights,
            sharding=sharding_of(mesh, rules) if mesh is not None else None,
            progress=progress,
        )
    return Pretrained(
        name=opened.name,
        model=SiglipModel(config, execution),
        params=params,
        profile=chosen,
        checkpoint=opened.checkpoint,
        vocabulary=opened.vocabulary,
        classifier=opened.classifier,
        mesh=mesh,
        rules=rules,
    )


def save(
    folder: str | os.PathLike[str],
    model: SiglipModel,
    params: Any,
    *,
    profile: Profile,
    vocabulary: str | os.PathLike[str] | None = None,
    classifier: Classifier | None = None,
    name: str | None = None,
) -> Path:
    """Writes a folder that `load` takes; appears whole or not at all.

    Args:
      folder: must not exist yet.
      model, params, profile: what to save; weights are written in the form they have.
      vocabulary: sentencepiece file to put beside them.
      classifier: of `Pretrained`, to keep.
      name: what to call it, the folder's name unless given.

    Raises:
      ValueError: if `folder` exists, the vocabulary is not the profile's, or the
        weights are int8.

    >>> import tempfile, jax, jax.numpy as jnp
    >>> from siglip_jax.config import Size, Text, Vision
    >>> from siglip_jax.preprocessing import custom_profile
    >>> size = Size(width=8, depth=1, mlp_dim=16, num_heads=2)
    >>> tiny = Siglip(vision=Vision(size=size, patch=8, res=16),
    ...               text=Text(size=size, vocab_size=9, length=4, head=8))
    >>> model = SiglipModel(tiny)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 4), int))
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = save(f"{parent}/tiny", model, params["params"],
    ...                   profile=custom_profile(tiny, pad=1))
    ...     again = load(folder)
    >>> again.name, again.config == tiny
    ('tiny', True)
    """
    from siglip_jax.converters import siglip_folder
    from siglip_jax.converters.safetensors_file import SafetensorsWriter

    folder = Path(folder)
    if vocabulary is not None:
        Tokenizer(vocabulary, profile.text)
    if model.execution.weights == "int8":
        raise ValueError(
            "int8 weights are rounded while loading and not a format of files; "
            "load the model with its own weights to save it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staged(folder, replace=False) as partial:
        partial.mkdir()
        siglip_folder.write_files(
            partial,
            model.config,
            None,
            name=name or folder.name,
            # 0 is also what stands in the profile of an image tower of which it is not known.
            pad=profile.text.pad or None,
            profile=profile,
            vocabulary=Path(vocabulary) if vocabulary is not None else None,
            classifier=classifier,
        )
        leaves = flatten(params)
        if classifier is not None:
            inside = siglip_folder.CLASSIFIER
            leaves[f"{inside}/kernel"] = classifier.kernel
            leaves[f"{inside}/bias"] = classifier.bias
        headers = {k: Header(tuple(leaf.shape), np.dtype(leaf.dtype)) for k, leaf in leaves.items()}
        with SafetensorsWriter(partial / siglip_folder.WEIGHTS, headers) as writer:
            for key, leaf in leaves.items():
                writer.write(key, on_host(leaf))
    return folder
