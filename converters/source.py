"""An open checkpoint of any format, with what its files say about it."""

import dataclasses
from pathlib import Path
from typing import Literal, Self

from siglip_jax import checkpoints
from siglip_jax.checkpoints import Checkpoint, Vocabulary
from siglip_jax.config import NaFlexVision, Siglip, Text, Vision
from siglip_jax.preprocessing.profiles import Profile
from siglip_jax.weights.layout import Shapes, parameter_shapes
from siglip_jax.weights.reader import Reader

Tower = Literal["image", "text"]
PREFIX = {"image": "img/", "text": "txt/"}
_VOCABULARY_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What `converters.open_checkpoint` returns; a context manager.

    Attributes:
      format: one of `converters.FORMATS`.
      path: file or folder, as given.
      reader: its tensors under big_vision's names, in the form they are stored in.
      files: what is read, for digests.
      config: the architecture. Of a single tower, the other one is a placeholder.
      tower: the only tower there is, or None for a whole model.
      dropped: stored tensors that are no weights of the model, and by which rule.
      vocabulary: sentencepiece file beside the weights.
      pad: padding id of texts, where the files or the vocabulary tell: 1 for SigLIP,
        0 for SigLIP 2.
      profile: preprocessing, where the files hold one of ours.
      name: what the files call the model.
      notes: what a user should know, a line each.
    """

    format: str
    path: Path
    reader: Reader
    files: tuple[Path, ...]
    config: Siglip
    tower: Tower | None = None
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    vocabulary: Path | None = None
    pad: int | None = None
    profile: Profile | None = None
    name: str | None = None
    notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.reader.close()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The row of the table with this architecture, if it is a whole model."""
        if self.tower is not None:
            return None
        return next((c for c in checkpoints.CHECKPOINTS if c.config == self.config), None)


def present(*files: Path) -> tuple[Path, ...]:
    """Those of `files` that there are."""
    return tuple(file for file in files if file.is_file())


def tower_shapes(config: Siglip, tower: Tower | None) -> Shapes:
    """Names and shapes, in loop form, of a model or of one tower of it."""
    shapes = parameter_shapes(config)
    if tower is None:
        return shapes
    return {name: shape for name, shape in shapes.items() if name.startswith(PREFIX[tower])}


def image_only(vision: Vision | NaFlexVision) -> Siglip:
    """A model around an image tower; its text tower is a placeholder that nothing reads."""
    text = Text(size=vision.size, vocab_size=1, length=1, head=vision.size.width)
    return Siglip(vision=vision, text=text)


def text_only(text: Text) -> Siglip:
    """A model around a text tower; its image tower is a placeholder that nothing reads."""
    width = text.head or text.size.width
    size = dataclasses.replace(text.size, width=width, num_heads=1)
    return Siglip(vision=Vision(size=size, patch=1, res=1), text=text)


def released_vocabulary(config: Siglip) -> Vocabulary | None:
    """The vocabulary whose token embedding has as many rows as the model's."""
    rows = config.text.vocab_size
    return next((v for v in checkpoints.VOCABULARIES.values() if v.rows == rows), None)


def vocabulary_beside(folder: Path, config: Siglip) -> Path | None:
    """A sentencepiece file in `folder`, by the names systems give it."""
    known = released_vocabulary(config)
    names = ((f"{known.name}.model",) if known else ()) + _VOCABULARY_FILES
    return next((folder / name for name in names if (folder / name).is_file()), None)
