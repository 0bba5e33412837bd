"""An open checkpoint of any format, with what its files say about it."""

import dataclasses
from pathlib import Path
from typing import Self

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint, Vocabulary
from siglip_jax.config import Siglip, Tower
from siglip_jax.errors import ModelError
from siglip_jax.preprocessing.profiles import Profile, custom_profile, profile_for
from siglip_jax.weights.reader import Reader

VOCABULARY_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenCheckpoint:
    """What `siglip_jax.open_model` and `converters.open_checkpoint` return; a context manager.

    Attributes:
      format: one of `converters.FORMATS`.
      path: file or folder, as given.
      reader: its tensors under big_vision's names, in the form they are stored in.
      files: what is read, for digests.
      config: the architecture, of the towers that there are.
      dropped: stored tensors that are no weights of the model, and by which rule.
      vocabulary: sentencepiece file beside the weights.
      pad: padding id of texts, where the files or the vocabulary tell: 1 for SigLIP,
        0 for SigLIP 2.
      profile: preprocessing, where the files hold one of ours.
      given_name: what the files call the model.
      notes: what another system does differently with these files, a line each.
      prefix: what stands before the names of the only tower that was read, where the files
        hold another model around it.
    """

    format: str
    path: Path
    reader: Reader
    files: tuple[Path, ...]
    config: Siglip
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    vocabulary: Path | None = None
    pad: int | None = None
    profile: Profile | None = None
    given_name: str | None = None
    notes: tuple[str, ...] = ()
    prefix: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()

    @property
    def tower(self) -> Tower | None:
        """The only tower there is, or None for a whole model."""
        return self.config.tower

    @property
    def like(self) -> Checkpoint | None:
        """The released checkpoint of the same architecture."""
        return next((c for c in checkpoints.CHECKPOINTS if c.config == self.config), None)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The released checkpoint that this is: of the same architecture and no other name."""
        row = self.like
        return row if row is not None and self.given_name in (None, row.name) else None

    @property
    def name(self) -> str:
        """What to call it: the name in its files, the released one, or the path."""
        return self.given_name or (self.checkpoint.name if self.checkpoint else str(self.path))

    def config_at(self, res: int | None) -> Siglip:
        """The architecture at another resolution; its own for None.

        Raises:
          ValueError: as `Siglip.at_resolution`.
        """
        if res is None or res == getattr(self.config.vision, "res", None):
            return self.config
        self.config.needs("image", what="resolutions", name=self.name)
        return self.config.at_resolution(res)

    def profile_named(self, profile: str | Profile, *, res: int | None = None) -> Profile:
        """The preprocessing that belongs to it.

        Args:
          profile: the system to follow, or a profile of one's own; files that hold a profile
            have the last word.
          res: pixels that the model is run at, where not its own.

        Raises:
          ValueError: if there is no such system, or nothing tells how texts are padded.
        """
        if self.profile is not None:
            chosen = self.profile
        elif isinstance(profile, Profile):
            chosen = profile
        elif self.checkpoint is not None:
            chosen = profile_for(self.checkpoint, profile)
        else:
            chosen = self._custom_profile(profile)
        if res is None or res == getattr(self.config.vision, "res", None):
            return chosen
        return dataclasses.replace(chosen, image=dataclasses.replace(chosen.image, res=res))

    def _custom_profile(self, profile: str) -> Profile:
        # What pads texts tells SigLIP from SigLIP 2, whose images only transformers prepares
        # in two ways.
        if self.pad is not None or (self.tower == "image" and profile != "transformers"):
            known = released_vocabulary(self.config)
            name = known.name if known and known.pad == self.pad else None
            return custom_profile(self.config, self.pad or 0, profile, name)
        advice = "pass a Profile (siglip_jax.preprocessing.custom_profile)"
        if self.tower == "image":
            fact = (
                f"{self.path} does not say whether it is a SigLIP or a SigLIP 2, whose images "
                "transformers prepares differently"
            )
        else:
            fact = (
                f"{self.path}: a token embedding of {self.config.text_tower.vocab_size} rows "
                "belongs to no released vocabulary, so how its texts are padded is unknown"
            )
            advice += (
                ", or save the model as a folder with its profile (siglip_jax.save) and load that"
            )
        raise ModelError(fact, needs="profile", advice=advice, path=self.path)


def present(*files: Path) -> tuple[Path, ...]:
    """Those of `files` that there are."""
    return tuple(file for file in files if file.is_file())


def released_vocabulary(config: Siglip) -> Vocabulary | None:
    """The vocabulary whose token embedding has as many rows as the model's."""
    return vocabulary_of_rows(config.text.vocab_size if config.text else None)


def vocabulary_of_rows(rows: object) -> Vocabulary | None:
    """The released vocabulary of so many rows."""
    return next((v for v in checkpoints.VOCABULARIES.values() if v.rows == rows), None)


def vocabulary_beside(folder: Path, config: Siglip) -> Path | None:
    """A sentencepiece file in `folder`, by the names systems give it."""
    if config.text is None:
        return None
    known = released_vocabulary(config)
    names = ((f"{known.name}.model",) if known else ()) + VOCABULARY_FILES
    return next((folder / name for name in names if (folder / name).is_file()), None)
