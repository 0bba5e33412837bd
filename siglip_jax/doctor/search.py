"""Which setting of another pipeline is wrong, and how much each wrong setting matters.

Two questions. `effects`: how far do scores of this model move if a setting is wrong?
`diagnose`: given a pipeline's embeddings of the bundled inputs, which setting, or which two,
when turned here, give the same embeddings?
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from siglip_jax.config import Tower, Vision
from siglip_jax.doctor.rounding import Rounding, roundings
from siglip_jax.doctor.settings import (
    Changes,
    ImageSettings,
    Settings,
    TextSettings,
    apply,
    candidates,
    correct,
    pairs,
)
from siglip_jax.doctor.wrong_inputs import TextInputs, text_inputs, tokens
from siglip_jax.doctor.wrong_towers import Towers
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Profile, Tokenizer
from siglip_jax.scoring.scores import sigmoid
from siglip_jax.verify import inputs

TOWERS: tuple[Tower, ...] = ("image", "text")
# Root mean square distance of two unit-norm rows that counts as none: two systems in
# float32 are about 1e-6 apart, the least of the settings (exact GELU) moves rows by 1e-4.
SAME = 1e-5
# A setting more must explain at least half of what was left, or it is noise.
_GAIN = 2.0
_EXPLAINED = 0.1  # of the distance may be left, which rounding to bfloat16 can need
_SHOWN = 5
_MOST = 2 / 3  # of the rows must fit for a verdict by rows


class Effect(NamedTuple):
    """How far wrong settings, by tower, move the scores of all bundled pairs."""

    settings: dict[str, Changes]
    max_logit: float
    mean_logit: float
    max_probability: float
    mean_probability: float


class Candidate(NamedTuple):
    """A setting, and how far embeddings are from those that it gives here."""

    setting: Changes
    distance: float


class Diagnosis(NamedTuple):
    """What was found for one tower.

    Attributes:
      verdict: "same"; "rounded", the same but for `rounding`; "explained"; "rows",
        explained but for `misfits`; "partly" or "unexplained".
      distance: root mean square distance of their rows from the model's own.
      best: the setting that explains them best with fewest settings; empty if none does.
      rounding: what the rest is, if it is as far and as even as that precision makes it.
      misfits: indices of the rows that do not fit, if most do.
      ties: other settings with as many settings that explain them as well.
      nearest: the nearest settings that were tried, best first.
      norms: smallest and largest length of their rows before they were normalised.
    """

    tower: str
    verdict: str
    distance: float
    best: Candidate
    rounding: Rounding | None
    misfits: tuple[int, ...]
    ties: tuple[Changes, ...]
    nearest: tuple[Candidate, ...]
    norms: tuple[float, float]


class Doctor:
    """A model, its right settings, and its embeddings of the bundled inputs under any others.

    Args:
      model, params: the model.
      profile: its own preprocessing, from which the right settings are read.
      tokenizer: given a text profile, the tokenizer for it; None to leave texts alone.

    Attributes:
      right: by tower, of those that there are.

    >>> import siglip_jax
    >>> model = siglip_jax.load("siglip_emoji")
    >>> doctor = Doctor(model.model, model.params, model.profile, None)
    >>> setting = doctor.settings("image")[0]
    >>> doctor.embed(doctor.right["image"]).shape[1], setting
    (192, (('framing', 'center_crop'),))
    """

    def __init__(
        self,
        model: SiglipModel,
        params: Any,
        profile: Profile,
        tokenizer: Callable[[Profile], Tokenizer] | None,
    ) -> None:
        self.config, self.profile = model.config, profile
        self.towers = Towers(model, params)
        right = dict(zip(TOWERS, correct(model.config, profile), strict=True))
        self.right: dict[str, Any] = {tower: right[tower] for tower in model.config.towers}
        self._scale = tuple(np.float32(params[name]) for name in ("t", "b") if name in params)
        self._pictures = list(inputs.pictures().values())
        self._texts: dict[Any, list[list[int]]] = {}
        self._rows: dict[Settings, np.ndarray] = {}
        self._text_rows: dict[Any, np.ndarray] = {}
        self._roundings: dict[str, list[Rounding]] = {}
        self.tokenizer = None
        if tokenizer is not None and model.config.text is not None:
            # It must not clean or cut: that is what settings do here.
            text = dataclasses.replace(profile.text, lower="none", clean="none", length=1024)
            self.tokenizer = tokenizer(dataclasses.replace(profile, text=text))

    def embed(self, settings: Settings) -> np.ndarray:
        """Embeddings of the bundled images or texts, (n, d), under these settings."""
        if settings not in self._rows:
            if isinstance(settings, ImageSettings):
                self._rows[settings] = self.towers.images(self._pictures, settings)
            else:
                self._rows[settings] = self._embed_texts(settings)
        return self._rows[settings]

    def settings(self, tower: str, known: Changes = ()) -> list[Changes]:
        """Every known wrong value of one setting alone, beside those `known` to be set so."""
        base = apply(self.right[tower], known)
        return [
            (single,)
            for single in candidates(base, self.config)
            if single[0] not in dict(known) and not self._idle(base, (single,))
        ]

    def _pairs(self, tower: str, known: Changes) -> list[Changes]:
        base = apply(self.right[tower], known)
        singles = [one for one in candidates(base, self.config) if one[0] not in dict(known)]
        return [pair for pair in pairs(singles) if not self._idle(base, pair)]

    def _idle(self, base: Settings, setting: Changes) -> bool:
        """Whether a position embedding is to be interpolated that stays on its own grid."""
        if "posemb" not in dict(setting):
            return False
        vision, settings = self.config.image_tower, apply(base, setting)
        if isinstance(vision, Vision):
            return settings.res // vision.patch == vision.grid
        return settings.framing == "squash" and math.isqrt(settings.res) == vision.posemb_grid

    def effect(self, settings: dict[str, Changes]) -> Effect:
        """How far the scores of all bundled images and texts move.

        Args:
          settings: tower to its wrong settings; a tower left out is right.

        Raises:
          ValueError: of one tower alone, which has no scores.
        """
        self.config.needs(*TOWERS, what="scores")
        right = self._logits({tower: self.embed(self.right[tower]) for tower in TOWERS})
        wrong = self._logits(
            {t: self.embed(apply(self.right[t], settings.get(t, ()))) for t in TOWERS}
        )
        logit = np.abs(wrong - right)
        probability = np.abs(sigmoid(wrong) - sigmoid(right))
        numbers = (logit.max(), logit.mean(), probability.max(), probability.mean())
        return Effect(settings, *map(float, numbers))

    def diagnose(
        self,
        tower: str,
        theirs: np.ndarray,
        known: Changes = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Diagnosis:
        """Finds the setting, or the two settings, that explain `theirs`.

        Args:
          tower: "image" or "text".
          theirs: (n, d), one row a bundled input (`check_rows`); of any length.
          known: settings known to be set so in their pipeline.
          progress: called with settings tried and settings in all.
        """
        norm = np.linalg.norm(theirs, axis=1, keepdims=True)
        theirs = theirs / norm
        base = apply(self.right[tower], known)
        tried: list[list[Changes]] = [[()], self.settings(tower, known), self._pairs(tower, known)]
        total, found = sum(map(len, tried)), []
        best = Candidate((), np.inf)
        for settings in tried:
            level = []
            for setting in settings:
                level.append(Candidate(setting, self._distance(apply(base, setting), theirs)))
                progress(len(found) + len(level), total)
            found += level
            nearest = min(level, key=lambda candidate: candidate.distance, default=best)
            if nearest.distance * _GAIN < best.distance:
                best = nearest
            if best.distance <= SAME:
                break
        start = self._distance(self.right[tower], theirs)
        rounding = misfits = None
        if start > SAME and best.distance > SAME:
            rounding = self._rounding(tower, self._apart(apply(base, best.setting), theirs))
            if rounding is None:
                best, rounding, misfits = self._by_rows(tower, base, found, best, theirs)
        ties = [
            c.setting
            for c in found
            if len(c.setting) == len(best.setting)
            and c.setting != best.setting
            and c.distance <= max(SAME, 1.01 * best.distance)
        ]
        if start <= SAME:
            verdict = "same"
        elif misfits:
            verdict = "rows"
        elif rounding is not None:
            verdict = "explained" if known + best.setting else "rounded"
        elif best.distance <= max(SAME, _EXPLAINED * start):
            verdict = "explained"
        else:
            verdict = "partly" if best.distance * _GAIN < start else "unexplained"
        nearest = sorted(found, key=lambda candidate: candidate.distance)[:_SHOWN]
        return Diagnosis(
            tower=tower,
            verdict=verdict,
            distance=start,
            best=Candidate(known + best.setting, best.distance),
            rounding=rounding,
            misfits=misfits or (),
            ties=tuple(known + setting for setting in ties),
            nearest=tuple(Candidate(known + c.setting, c.distance) for c in nearest),
            norms=(float(norm.min()), float(norm.max())),
        )

    def _rounding(self, tower: str, rows: np.ndarray) -> Rounding | None:
        """The precision that explains rows so far from the right ones, the likeliest of several."""
        if tower not in self._roundings:
            right = self.right[tower]

            def embed(towers: Towers, **grey: int) -> np.ndarray:
                if isinstance(right, ImageSettings):
                    return towers.images(self._pictures, right, **grey)
                return towers.texts(self._text_inputs(right), right.activation)

            levels = tower == "image" and right.resize != "tf_antialias"
            self._roundings[tower] = roundings(
                self.towers.model, self.towers.params, embed, grey=levels
            )
        explaining = [each for each in self._roundings[tower] if each.explains(rows)]
        return min(explaining, key=lambda each: each.unlikeness(rows), default=None)

    def _by_rows(
        self,
        tower: str,
        base: Settings,
        found: list[Candidate],
        best: Candidate,
        theirs: np.ndarray,
    ) -> tuple[Candidate, Rounding | None, tuple[int, ...] | None]:
        """The setting that most rows fit, what rounds these, and the rows that do not fit.

        `best` alone, if two thirds of the rows fit no setting.
        """
        far = [self._apart(apply(base, each.setting), theirs) for each in found]
        # Exactly first; of several the one with fewest settings comes first in `found`.
        fits = [(rows <= SAME).sum() for rows in far]
        if max(fits) >= _MOST * len(theirs):
            i = int(np.argmax(fits))
            return found[i], None, tuple(np.flatnonzero(far[i] > SAME).tolist())
        # Rounded, the rows of the right setting lie close together and the others far off.
        many = math.ceil(_MOST * len(theirs))
        i, least = 0, np.inf
        for j, rows in enumerate(far):
            if (spread := float(np.sort(rows)[many - 1])) * _GAIN < least:
                i, least = j, spread
        nearest = np.sort(far[i])[:many]
        off = far[i] > 3 * np.sqrt(np.square(nearest).mean())
        rounding = self._rounding(tower, far[i][~off]) if off.any() else None
        if rounding is None:
            return best, None, None
        return found[i], rounding, tuple(np.flatnonzero(off).tolist())

    def _apart(self, settings: Settings, theirs: np.ndarray) -> np.ndarray:
        """How far each row is from that of these settings."""
        return np.linalg.norm(self.embed(settings) - theirs, axis=1)

    def _text_inputs(self, settings: TextSettings) -> TextInputs:
        if self.tokenizer is None:
            raise ValueError("texts cannot be embedded without a vocabulary; name a file")
        cleaning = (settings.lower, settings.punctuation)
        if cleaning not in self._texts:
            self._texts[cleaning] = tokens(self.tokenizer, inputs.TEXTS, settings)
        eos, length = self.profile.text.eos, self.config.text_tower.length
        return text_inputs(self._texts[cleaning], settings, length, eos)

    def _embed_texts(self, settings: TextSettings) -> np.ndarray:
        rows = self._text_inputs(settings)
        # Most settings change a few texts; the other rows are known already.
        keys = [
            (settings.activation, *(part[i].tobytes() for part in rows))
            for i in range(len(rows.ids))
        ]
        new = [i for i, key in enumerate(keys) if key not in self._text_rows]
        if new:
            z = self.towers.texts(TextInputs(*(part[new] for part in rows)), settings.activation)
            self._text_rows |= {keys[i]: row for i, row in zip(new, z, strict=True)}
        return np.stack([self._text_rows[key] for key in keys])

    def _logits(self, z: dict[str, np.ndarray]) -> np.ndarray:
        t, b = self._scale
        return z["image"] @ z["text"].T * np.exp(t) + b

    def _distance(self, settings: Settings, theirs: np.ndarray) -> float:
        return float(np.sqrt(np.square(self.embed(settings) - theirs).sum(1).mean()))
