"""Everything published for a checkpoint that can be repeated here, beside our own numbers."""

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from siglip_jax.activity import activity
from siglip_jax.checkpoints import Checkpoint
from siglip_jax.preprocessing import Profile
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring import Scorer
from siglip_jax.verify.checks import (
    Check,
    check_images,
    check_texts,
    check_weights,
    encode,
    tokenizer_of,
)
from siglip_jax.verify.published_logits import Published, published_for


class Value(NamedTuple):
    """One published number and ours."""

    picture: str
    text: str
    published: float
    ours: float

    @property
    def difference(self) -> float:
        return abs(self.ours - self.published)


class Outcome(NamedTuple):
    """What came of one published table; `missing` says why there are no values."""

    table: Published
    values: tuple[Value, ...]
    missing: tuple[str, ...]

    @property
    def largest(self) -> float:
        """The largest difference. A number that is not finite differs by infinity."""
        differences = np.array([value.difference for value in self.values])
        return float(np.nan_to_num(differences, nan=np.inf).max())

    @property
    def status(self) -> str:
        """agrees, differs or not run."""
        if self.missing:
            return "not run"
        return "agrees" if self.largest <= self.table.tolerance else "differs"


class Report(NamedTuple):
    """All checks and all published tables of one model."""

    checks: list[Check]
    outcomes: list[Outcome]

    @property
    def ok(self) -> bool:
        """Whether nothing that was run came out wrong."""
        failed = [check for check in self.checks if check.ok is False]
        return not failed and all(outcome.status != "differs" for outcome in self.outcomes)


def verify(model: Pretrained, folder: Path | None = None) -> Report:
    """Checks a model, and repeats what is published for its checkpoint.

    Args:
      model: what `siglip_jax.load` returns.
      folder: image files, for the tables that need some.

    Raises:
      ValueError: if `folder` is none, or holds an image or a list that cannot be read.

    >>> import siglip_jax
    >>> report = verify(siglip_jax.load("siglip_emoji"))
    >>> report.ok, report.checks[0].name
    (True, 'strict load')
    """
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    with activity("checking weights"):
        checks = check_weights(model)
    scorer = model.scorer(tokenizer=False, batch_size=8, text_batch_size=16)
    with activity("checking embeddings"):
        checks += check_images(scorer) if model.config.vision else []
    without = ()
    try:
        if model.config.text:
            scorer.tokenizer = model.tokenizer()
            checks += check_texts(scorer)
    except ValueError as error:
        checks.append(Check("texts", None, str(error)))
        without = (f"a vocabulary: {error}",)
    outcomes = []
    for table in published_for(model.checkpoint):
        with activity(f"repeating {table.name}"):
            outcomes.append(_repeat(table, model, scorer, folder, without))
    return Report(checks, outcomes)


def _repeat(
    table: Published,
    model: Pretrained,
    scorer: Scorer,
    folder: Path | None,
    without: tuple[str, ...],
) -> Outcome:
    pictures, texts, missing = table.inputs(folder)
    if missing or without:
        return Outcome(table, (), (*missing, *without))
    profile = table.profile_of(cast(Checkpoint, model.checkpoint))  # of which the table is
    other = _with_profile(scorer, model, profile)
    zimg = other.embed_images(list(pictures.values()))
    ztxt = other.embed_texts(encode(tokenizer_of(other), texts))
    ours = other.logits(zimg, ztxt)
    if not table.with_bias:
        ours = ours - np.asarray(model.params["b"])
    values = [
        Value(picture, text, float(published), float(value))
        for picture, published_row, row in zip(pictures, table.logits, ours, strict=True)
        for text, published, value in zip(texts, published_row, row, strict=True)
    ]
    return Outcome(table, tuple(values), ())


def _with_profile(scorer: Scorer, model: Pretrained, profile: Profile) -> Scorer:
    """The same compiled program behind another preprocessing."""
    other = copy.copy(scorer)
    other.profile = profile
    other.tokenizer = dataclasses.replace(model, profile=profile).tokenizer()
    return other
