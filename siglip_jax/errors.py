"""An error about a model that says what to give, for readers who give it in different ways."""

import contextlib
import struct
import tokenize
import zlib
from collections.abc import Generator
from typing import Any, Literal, Self

Need = Literal[
    "config", "res", "pad", "profile", "preprocessing", "vocabulary", "force", "loop",
    "classifier", "base", "adapter",
]  # fmt: skip


class ModelError(ValueError):
    """A model that does not say enough, or cannot be written as asked.

    Its message is for a caller in Python; the command line makes its own of the parts.

    Args:
      fact: what is wrong.
      advice: what a caller in Python can do about it.

    Attributes:
      fact: as given.
      needs: the argument that would mend it: `config`, `res`, `pad`, `profile` (a `Profile`),
        `preprocessing` (a profile's name), `vocabulary`, `force`, `classifier`, `base`;
        "adapter", no `base`, as it is no adapter; or "loop", blocks that are not stacked.
      values: what advice may name: `path`, `card` (a file), `res` and `res_to` (pixels).

    >>> ModelError("x.npz is small", needs="res", advice="pass res=32", res=32)
    ModelError('x.npz is small; pass res=32')
    """

    def __init__(self, fact: str, *, needs: Need, advice: str, **values: Any) -> None:
        super().__init__(f"{fact}; {advice}")
        self.fact, self.advice, self.values = fact, advice, values
        self.needs: Need = needs

    def about(self, path: Any) -> Self:
        """The same, with the file that it is about named first."""
        values = {"path": path, **self.values}
        return type(self)(f"{path}: {self.fact}", needs=self.needs, advice=self.advice, **values)


# What libraries, and we, run into where a file says something that no such file does; besides
# what they say so with: a ValueError or an OSError, and a MemoryError where it claims too much.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
)


@contextlib.contextmanager
def legible(path: Any) -> Generator[None]:
    """Around the reading of files: what nobody foresaw in them is one line about `path`.

    The cause stays behind it, for --debug.

    >>> with legible("x.npz"):
    ...     {}["shape"]
    Traceback (most recent call last):
    ValueError: x.npz is damaged, or of a kind that is not known (KeyError: 'shape')
    """
    try:
        yield
    except DAMAGE as error:
        said = " ".join(str(error).split())[:200]
        what = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise ValueError(f"{path} is damaged, or of a kind that is not known ({what})") from error
