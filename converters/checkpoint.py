"""An open checkpoint of any format, with what its files say about it."""

import dataclasses
from pathlib import Path
from typing import Self

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint, Vocabulary
from siglip_jax.classifier import Classifier
from siglip_jax.config import Siglip, Tower, Vision
from siglip_jax.errors import ModelError
from siglip_jax.messages import choose
from siglip_jax.preprocessing.profiles import (
    FOLDER,
    PROFILES,
    Profile,
    custom_profile,
    profile_for,
)
from siglip_jax.preprocessing.tokenizer_json import TextSettings
from siglip_jax.weights.reader import Reader

from .folder_images import FolderImages, images_of_profile

TOKENIZER_JSON = "tokenizer.json"
VOCABULARY_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.model", TOKENIZER_JSON)


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
      vocabulary: sentencepiece file beside the weights, or `tokenizer.json` where that is all.
      pad: padding id of texts, where the files or the vocabulary tell: 1 for SigLIP,
        0 for SigLIP 2.
      text_settings: case and cleaning of texts, where a `tokenizer.json` states them.
      profile: preprocessing, where the files hold one of ours.
      images: what the files of another system say about preparing images.
      given_name: what the files call the model.
      notes: what another system does differently with these files, a line each.
      classifier: of a fine-tune that tells classes apart.
      reports: what was taken off these files and left out of them, a line each.
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
    text_settings: TextSettings | None = None
    profile: Profile | None = None
    images: FolderImages | None = None
    given_name: str | None = None
    notes: tuple[str, ...] = ()
    classifier: Classifier | None = None
    reports: tuple[str, ...] = ()
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
        row = None if self.classifier is not None else self.like
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

    def profile_named(
        self, profile: str | Profile | None = None, *, res: int | None = None
    ) -> Profile:
        """The preprocessing that belongs to it, or another system's.

        Args:
          profile: the system to follow (of a folder of its own, with that folder's settings);
            "folder", what the files say; or a profile of one's own. None is "folder" where
            the files hold a profile of ours or settings that are not the released ones, else
            big_vision's, as the weights were trained.
          res: pixels that the model is run at, where not its own.

        Raises:
          ValueError: if there is no such system, the files do not say what is asked of them,
            or nothing tells how texts are padded.
        """
        chosen = profile if isinstance(profile, Profile) else self._chosen(profile)
        if res is None or res == getattr(self.config.vision, "res", None):
            return chosen
        return dataclasses.replace(chosen, image=dataclasses.replace(chosen.image, res=res))

    def with_text_settings(self, profile: Profile) -> Profile:
        """`profile` with the case and cleaning that the files state, where they do."""
        found = self.text_settings
        # Released weights keep big_vision's treatment of texts, whichever class reads them.
        if found is None or not (found.own or self.checkpoint is None):
            return profile
        text = dataclasses.replace(profile.text, lower=found.lower, clean=found.clean)
        return dataclasses.replace(profile, text=text)

    def profile_note(self, profile: str | Profile | None = None) -> str | None:
        """One line of the folder's own settings: that they are followed, though they are not
        the released ones and nobody asked for them, or which of them `profile` leaves aside.

        None where there is nothing to say. `profile` is as for `profile_named`.
        """
        if isinstance(profile, Profile):
            return None
        images = self.own_images
        if self._follows(profile):
            if profile is not None or images is None or self.profile is not None:
                return None
            return (
                f"{images.file} is followed, whose settings are not those of the released "
                f"weights: {images.beside(images.released, 'released')}; profile folder says "
                "so, profile big_vision leaves them aside"
            )
        chosen = self.profile_named(profile)
        apart = [images.beside(chosen.image, chosen.name)] if images is not None else []
        if self.profile is not None:
            ours, theirs = self.profile.text, chosen.text
            usual = self._named(images.system if images is not None else "big_vision").text
            apart += [
                f"{name} {getattr(ours, name)} ({chosen.name}: {getattr(theirs, name)})"
                for name in ("lower", "clean")
                if getattr(ours, name) not in (getattr(usual, name), getattr(theirs, name))
            ]
        where = images.file if images is not None else self.path
        said = ", ".join(filter(None, apart))
        return f"profile {chosen.name} leaves aside what {where} says: {said}" if said else None

    @property
    def own_images(self) -> FolderImages | None:
        """What its files say about images, of ours as of other systems."""
        if self.profile is None or self.config.vision is None:
            return self.images
        return images_of_profile(self.profile, self.config, self.files[0])

    def _follows(self, name: str | None) -> bool:
        """Whether `name` asks for what the files say."""
        if self.profile is not None:
            return name in (None, FOLDER)
        if self.images is None:
            return False
        return name == FOLDER or (self.images.own and name in (None, self.images.system))

    def _chosen(self, name: str | None) -> Profile:
        if name is not None:
            choose("profile", name, (*PROFILES, FOLDER))
        if self._follows(name):
            return self.profile or self._folder_profile(name)
        if name == FOLDER:
            raise ModelError(
                f"{self.path} does not say how its images are prepared",
                needs="preprocessing",
                advice='pass profile="big_vision", "transformers" or "open_clip"',
            )
        named = self._named(name or "big_vision")
        if self.profile is None:
            return named
        # What is the model's or ours to choose, and no system's.
        image, text = self.profile.image, self.profile.text
        return dataclasses.replace(
            named,
            image=dataclasses.replace(
                named.image, background=image.background, max_pixels=image.max_pixels
            ),
            text=dataclasses.replace(named.text, vocabulary=text.vocabulary, eos=text.eos),
        )

    def _folder_profile(self, name: str | None) -> Profile:
        """The profile that another system's files state."""
        images = self.images
        assert images is not None
        if images.said is None:
            raise ModelError(
                f"{images.file}: {images.problem}, which siglip_jax does not do",
                needs="preprocessing",
                advice='pass profile="big_vision" to leave that aside',
            )
        if self.tower == "image":
            text = custom_profile(self.config, self.pad or 0, images.system).text
        else:
            text = self._named(images.system).text
        image, vision = images.said, self.config.vision
        if isinstance(vision, Vision) and image.res not in (vision.res, vision.grid * vision.patch):
            image = dataclasses.replace(image, res=vision.res)  # the note names the other
        return Profile(name=name or FOLDER, image=image, text=text)

    def _named(self, name: str) -> Profile:
        if self.checkpoint is not None:
            return self.with_text_settings(profile_for(self.checkpoint, name))
        return self._custom_profile(name)

    def _custom_profile(self, profile: str) -> Profile:
        # What pads texts tells SigLIP from SigLIP 2, whose images only transformers prepares
        # in two ways.
        if self.pad is not None or (self.tower == "image" and profile != "transformers"):
            known = released_vocabulary(self.config)
            name = known.name if known and known.pad == self.pad else None
            made = custom_profile(self.config, self.pad or 0, profile, name)
            return self.with_text_settings(made)
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
    """The vocabulary in `folder`, by the names systems give it; sentencepiece goes first."""
    if config.text is None:
        return None
    known = released_vocabulary(config)
    names = ((f"{known.name}.model",) if known else ()) + VOCABULARY_FILES
    return next((folder / name for name in names if (folder / name).is_file()), None)
