"""Which model, prepared how, logits are of: a calibration is for no other."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, cast

from siglip_jax.preprocessing.profiles import ADDED, MAX_PIXELS, Profile
from siglip_jax.weights.digest import weights_digest
from siglip_jax.weights.tree import flatten


class Model(Protocol):
    """What has weights and a profile: `Pretrained` and `Scorer`."""

    @property
    def params(self) -> Any: ...

    @property
    def profile(self) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Identity:
    """A model and its preprocessing, as manifests of jobs record them.

    Attributes:
      name: that the model was loaded by; says nothing of which it is.
      weights: the digest of its parameters (`siglip_jax.weights.digest`).
      profile: `Profile.to_dict()`.
    """

    name: str
    weights: str
    profile: dict[str, Any]

    def differences(self, other: "Identity") -> list[str]:
        """What differs, in words; nothing where scores are the same.

        >>> Identity("a", "sha256:1", {"image": {"res": 224}}).differences(
        ...     Identity("b", "sha256:1", {"image": {"res": 256}}))
        ['profile image.res (224 there, 256 here)']
        """
        if self.weights != other.weights:
            return ["weights"]  # they say it all
        there, here = (dict(_leaves(_settings(one.profile))) for one in (self, other))
        # A name is no setting: that of a folder may have all of a system's.
        names = [name for name in sorted(there.keys() | here.keys()) if name != "name"]
        return [
            f"profile {name} ({there.get(name)!r} there, {here.get(name)!r} here)"
            for name in names
            if there.get(name) != here.get(name)
        ]


def identity_of(model: "Model | Identity", profile: Any = None) -> Identity:
    """The identity of what `load` returns, or of its scorer.

    Reads all weights once: some seconds for a billion parameters.

    Args:
      profile: a `Profile`, or one as `to_dict` writes it; default: that of the model.

    Raises:
      ValueError: if there is no profile, as of a scorer for ready arrays only.

    >>> from siglip_jax import load
    >>> found = identity_of(load("siglip_emoji"))
    >>> found.name, found.weights[:15], found.profile["image"]["res"]
    ('siglip_emoji', 'tensors-sha256:', 32)
    """
    if not isinstance(model, Identity):
        from siglip_jax.weights.save import on_host

        profile = model.profile if profile is None else profile
        if profile is None:
            raise ValueError("the model has no preprocessing profile; give one as profile")
        weights = weights_digest(flatten(model.params), on_host)
        model = Identity(getattr(model, "name", "the model"), weights, {})
    if profile is None:
        return model
    plain = profile.to_dict() if isinstance(profile, Profile) else dict(profile)
    return dataclasses.replace(model, profile=plain)


def _settings(profile: Mapping[str, Any]) -> dict[str, Any]:
    """What of a profile decides scores, from files of any version."""
    plain = dict(profile)
    if isinstance(image := plain.get("image"), dict):
        # Which images are refused says nothing of the others.
        plain["image"] = ADDED | cast(dict[str, Any], image) | {"max_pixels": MAX_PIXELS}
    return plain


def _leaves(plain: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
