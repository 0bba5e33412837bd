"""What the doctor found, as text for a person and as plain JSON types."""

import dataclasses
from typing import TYPE_CHECKING, Any

from siglip_jax.cli.output import aligned
from siglip_jax.doctor.settings import Changes

if TYPE_CHECKING:
    from siglip_jax.doctor.search import Candidate, Diagnosis, Doctor, Effect


def plain(
    name: str, doctor: "Doctor", effects: "list[Effect]", diagnoses: "list[Diagnosis]"
) -> dict[str, Any]:
    """Everything, for --json."""
    from siglip_jax.verify.inputs import inputs_digest

    return {
        "model": name,
        "profile": doctor.profile.name,
        "inputs": inputs_digest(),
        "right": {tower: dataclasses.asdict(settings) for tower, settings in doctor.right.items()},
        "diagnoses": [
            {
                **found._asdict(),
                "best": _plain_candidate(found.best),
                "ties": [dict(setting) for setting in found.ties],
                "nearest": [_plain_candidate(candidate) for candidate in found.nearest],
            }
            for found in diagnoses
        ],
        "effects": [
            {**e._asdict(), "settings": {tower: dict(s) for tower, s in e.settings.items()}}
            for e in effects
        ],
    }


def _plain_candidate(candidate: "Candidate") -> dict[str, Any]:
    return {"setting": dict(candidate.setting), "distance": candidate.distance}


def _spoken(setting: Changes) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting) or "nothing changed"


def print_diagnosis(found: "Diagnosis", doctor: "Doctor", name: str) -> None:
    right = doctor.right[found.tower]
    print(f"{found.tower}: {_difference(found, name)}")
    if min(found.norms) < 0.99 or max(found.norms) > 1.01:
        low, high = found.norms
        print(f"  their rows have norms of {low:.4g} to {high:.4g}, not 1; normalize them")
    if found.verdict == "same":
        return
    words = {"explained": "explained by", "partly": "explained in part by"}
    if found.verdict in words:
        wrong = ", ".join(
            f"{key} {value} (should be {getattr(right, key)})" for key, value in found.best.setting
        )
        print(f"  {words[found.verdict]} {wrong}; {found.best.distance:.2g} is left")
        for setting in found.ties:
            print(f"  as good: {_spoken(setting)}")
    else:
        print("  no setting and no two settings explain it")
    rows = [(_spoken(c.setting), f"{c.distance:.2g}") for c in found.nearest]
    print(aligned([("NEAREST THAT WERE TRIED", "DISTANCE"), *rows], "lr", "  "))


def _difference(found: "Diagnosis", name: str) -> str:
    if found.verdict == "same":
        return f"the embeddings of {name} (distance {found.distance:.2g})"
    return f"{found.distance:.2g} a row away from {name} (root mean square, unit-norm rows)"


def print_effects(effects: "list[Effect]", doctor: "Doctor") -> None:
    head = ("TOWER", "WRONG SETTING", "SHOULD BE", "LOGIT MAX", "MEAN", "PROBABILITY MAX", "MEAN")
    rows: list[tuple[str, ...]] = [head]
    for effect in effects:
        settings = list(effect.settings.items())
        changed = [one for _, setting in settings for one in setting]
        if len(changed) == 1:
            tower, ((key, value),) = settings[0]
            names = (tower, f"{key} {value}", str(getattr(doctor.right[tower], key)))
        else:
            names = (" and ".join(effect.settings), "all of these", "")
        logits = (f"{effect.max_logit:.3g}", f"{effect.mean_logit:.3g}")
        rows.append(
            (*names, *logits, f"{effect.max_probability:.3g}", f"{effect.mean_probability:.3g}")
        )
    print(aligned(rows, "lllrrrr"))
