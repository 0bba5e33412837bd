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
                "rounding": found.rounding and found.rounding.name,
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
    if found.verdict in ("same", "rounded"):
        return
    words = {
        "explained": "explained by",
        "rows": "explained, but for the rows below, by",
        "partly": "explained in part by",
    }
    if found.verdict in words and found.best.setting:
        wrong = ", ".join(
            f"{key} {value} (should be {getattr(right, key)})" for key, value in found.best.setting
        )
        print(
            f"  {words[found.verdict]} {wrong}; {found.best.distance:.2g} is left{_rounding(found)}"
        )
        for setting in found.ties:
            print(f"  as good: {_spoken(setting)}")
    elif found.verdict != "rows":
        print("  no setting and no two settings explain it")
    if found.misfits:
        rows = _rows(found)
        print(f"  these rows do not fit, and no setting or two explain them: {rows}")
    rows = [(_spoken(c.setting), f"{c.distance:.2g}") for c in found.nearest]
    print(aligned([("NEAREST THAT WERE TRIED", "DISTANCE"), *rows], "lr", "  "))


def _difference(found: "Diagnosis", name: str) -> str:
    if found.verdict == "same":
        return f"the embeddings of {name} (distance {found.distance:.2g})"
    if found.verdict == "rounded" or (found.verdict == "rows" and not found.best.setting):
        but = f" but for {len(found.misfits)} of the rows" if found.misfits else ""
        return f"the embeddings of {name}{but} (distance {found.distance:.2g}{_rounding(found)})"
    return f"{found.distance:.2g} a row away from {name} (root mean square, unit-norm rows)"


def _rounding(found: "Diagnosis") -> str:
    """What the distance that is left is, in words; nothing where no rounding is like it."""
    if found.rounding is None:
        return ""
    name, distance, _ = found.rounding
    what = "resized images to grey levels" if name == "grey levels" else name
    return f", within the rounding of {what}, which moves rows by {distance:.2g}"


def _rows(found: "Diagnosis") -> str:
    """The images or texts that do not fit, as the bundled inputs call them."""
    from siglip_jax.verify.inputs import TEXTS, pictures

    names = list(pictures()) if found.tower == "image" else [repr(text[:30]) for text in TEXTS]
    return ", ".join(f"{index + 1} ({names[index]})" for index in found.misfits)


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
