"""Checks of a loaded model that need neither an image file nor a published number."""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siglip_jax.preprocessing import TextProfile, Tokenizer
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring import Scorer
from siglip_jax.verify import inputs
from siglip_jax.verify.published_logits import BIAS_TOLERANCE, SCALES, TEMPERATURE_TOLERANCE
from siglip_jax.weights.layout import parameter_count
from siglip_jax.weights.tree import flatten

# Training starts at exp(t) = 10 and b = -10; released models have up to 118 and -16.
TEMPERATURES = (1.0, 1000.0)
BIASES = (-100.0, 0.0)
_LENGTH = 1e-5  # of float32 rows, whose norm is a sum of up to 1536 squares
_TOGETHER = 1e-5  # an embedding must not depend on what else is in its batch


class Check(NamedTuple):
    """One check; `ok` is None if it could not be made."""

    name: str
    ok: bool | None
    detail: str


def check_weights(model: Pretrained) -> list[Check]:
    """Counts, finiteness, temperature and bias. The load was strict, or there were no model."""
    flat = flatten(model.params)
    checks = [Check("strict load", True, f"{len(flat)} tensors, as the architecture has them")]
    found, expected = sum(leaf.size for leaf in flat.values()), parameter_count(model.config)
    if model.checkpoint is not None:
        expected = model.checkpoint.params
    more = "" if found == expected else f", expected {expected:,}"
    checks.append(Check("parameters", found == expected, f"{found:,}{more}"))
    finite = jax.jit(lambda leaves: {name: jnp.isfinite(x).all() for name, x in leaves.items()})
    bad = sorted(name for name, good in finite(flat).items() if not good)
    shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    checks.append(Check("finite weights", not bad, f"not finite: {shown}" if bad else "all"))
    if model.config.tower is not None:
        return checks
    t, b = (float(np.asarray(model.params[name])[0]) for name in ("t", "b"))
    temperature = math.exp(min(t, 700.0))
    checks.append(_within("temperature exp(t)", temperature, TEMPERATURES))
    checks.append(_within("bias b", b, BIASES))
    scale = SCALES.get(model.checkpoint.name) if model.checkpoint else None
    if scale is not None and scale.temperature is not None:
        ok = abs(temperature - scale.temperature) <= TEMPERATURE_TOLERANCE
        detail = f"{temperature:.6g}, big_vision's notebook prints {scale.temperature}"
        checks.append(Check("published temperature", ok, detail))
    if scale is not None:
        ok = abs(b - scale.bias) <= BIAS_TOLERANCE
        detail = f"{b:.9g}, big_vision's notebook prints {scale.bias:.9g}"
        checks.append(Check("published bias", ok, detail))
    return checks


def _within(name: str, value: float, limits: tuple[float, float]) -> Check:
    low, high = limits
    ok = low <= value <= high
    return Check(name, ok, f"{value:.6g}" + ("" if ok else f", expected {low:g} to {high:g}"))


def check_images(scorer: Scorer) -> list[Check]:
    """Embeddings of the bundled pictures."""
    pictures = list(inputs.pictures().values())
    if scorer.model.config.pool == "none":
        return _check_patches(scorer, pictures)
    z = scorer.embed_images(pictures)
    # Another order gives every image other neighbours.
    turned = scorer.embed_images(pictures[::-1])[::-1]
    return _check_rows("pictures", z, turned)


def _check_patches(scorer: Scorer, pictures: list[np.ndarray]) -> list[Check]:
    z = scorer.features(pictures)
    turned = scorer.features(pictures[::-1])[::-1]
    finite, apart = bool(np.isfinite(z).all()), float(np.abs(z - turned).max())
    limit = _TOGETHER * max(1.0, float(np.abs(z).max()))
    return [
        Check("patches: finite", finite, f"{z.shape[1]} patches an image, {z.shape[2]} wide"),
        Check("patches: alone as in a batch", apart <= limit, f"within {apart:.1e}"),
    ]


def check_texts(scorer: Scorer) -> list[Check]:
    """Token ids and embeddings of the bundled texts."""
    tokenizer = tokenizer_of(scorer)
    ids = encode(tokenizer, inputs.TEXTS)
    z, turned = scorer.embed_texts(ids), scorer.embed_texts(ids[::-1])[::-1]
    # Cut to a short context, two texts may be the same.
    _, first = np.unique(ids, axis=0, return_index=True)
    return [_check_ids(ids, tokenizer.profile), *_check_rows("texts", z[first], turned[first])]


def tokenizer_of(scorer: Scorer) -> Tokenizer:
    """The tokenizer of a scorer that was made for texts.

    Raises:
      ValueError: if it has none.
    """
    if scorer.tokenizer is None:
        raise ValueError("checks of texts need a Scorer with a tokenizer")
    return scorer.tokenizer


def encode(tokenizer: Tokenizer, texts: tuple[str, ...]) -> np.ndarray:
    """Token ids, without the warning that one text is long, as it is meant to be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tokenizer.encode(list(texts))


def _check_ids(ids: np.ndarray, text: TextProfile) -> Check:
    problems = []
    ends = ids == text.eos
    if ids.shape[1] != text.length:
        problems.append(f"texts have {ids.shape[1]} ids, not {text.length}")
    if not ends.any(1).all():
        problems.append(f"text {int(ends.any(1).argmin())} has no end")
    after = np.arange(ids.shape[1]) > ends.argmax(1)[:, None]
    if (after & (ids != text.pad)).any():
        problems.append(f"something but padding ({text.pad}) follows an end")
    if ids[-1, -1] != text.eos:
        problems.append("the end of the long text was cut off")
    if ids.max() >= text.rows:
        problems.append(f"id {ids.max()} is beyond the embedding")
    good = f"{text.length} ids a text, padded with {text.pad}, end {text.eos} kept when cut"
    return Check("token ids", not problems, "; ".join(problems) or good)


def _check_rows(what: str, z: np.ndarray, turned: np.ndarray) -> list[Check]:
    length = np.abs(np.linalg.norm(z, axis=1) - 1).max()
    apart = np.abs(z - turned).max()
    alike = (z @ z.T - 2 * np.eye(len(z))).max()
    return [
        Check(f"{what}: length 1", bool(length <= _LENGTH), f"within {length:.1e}"),
        Check(f"{what}: alone as in a batch", bool(apart <= _TOGETHER), f"within {apart:.1e}"),
        Check(
            f"{what}: told apart",
            bool(alike < 1 - 1e-6),
            f"cosine of the two most alike {alike:.4f}",
        ),
    ]
