"""What a folder's own files say about preparing images, in whose words, and what is released.

Each format's reader makes a `FolderImages`; `OpenCheckpoint` chooses by it, `convert` keeps it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from siglip_jax.config import Siglip
from siglip_jax.errors import DAMAGE
from siglip_jax.messages import reason
from siglip_jax.preprocessing.image_settings import SETTINGS, different_settings, settings_of
from siglip_jax.preprocessing.profiles import (
    ImageProfile,
    Profile,
    ProfileName,
    custom_profile,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderImages:
    """How a folder wants its images prepared.

    Attributes:
      file: that says it.
      system: that reads it.
      said: what that system does with images by it; None if we cannot do that.
      released: what it does with the settings of the released weights.
      problem: why `said` is None.
    """

    file: Path
    system: ProfileName
    said: ImageProfile | None
    released: ImageProfile
    problem: str = ""

    @property
    def own(self) -> bool:
        """Whether any setting is not the released one."""
        return self.said is None or bool(self.changed)

    def record(self, written: ImageProfile | None) -> dict[str, Any]:
        """What a certificate says of settings that are not the released ones.

        Args:
          written: what the files that were written say; None if they say nothing.
        """
        if self.said is None:
            return {"file": self.file.name, "problem": self.problem, "settings": {}, "lost": []}
        ours, usual = settings_of(self.said), settings_of(self.released)
        theirs = settings_of(written) if written else {}
        lost = [
            name
            for name in (SETTINGS if written else self.changed)
            if _method(ours[name]) != _method(theirs.get(name, ""))
        ]
        settings = {
            name: {"source": ours[name], "written": theirs.get(name), "released": usual[name]}
            for name in SETTINGS
            if name in {*self.changed, *lost}
        }
        return {"file": self.file.name, "problem": None, "settings": settings, "lost": lost}

    @property
    def changed(self) -> list[str]:
        """The names of the settings that are not the released ones."""
        return different_settings(self.said, self.released) if self.said else []

    def beside(self, other: ImageProfile, name: str) -> str:
        """The settings that are its own and not those of `other`, in words."""
        if self.said is None:
            return self.problem
        ours, theirs = settings_of(self.said), settings_of(other)
        return ", ".join(
            f"{key} {ours[key]} ({name}: {theirs[key]})"
            for key in self.changed
            if ours[key] != theirs[key]
        )


def images_said(
    file: Path, system: ProfileName, released: ImageProfile, read: Callable[[], ImageProfile]
) -> FolderImages:
    """What `read` makes of a folder's settings, or why that is nothing that we can do."""
    said, problem = None, ""
    try:
        said = read()
    except (ValueError, *DAMAGE) as error:
        problem = reason(error)
    return FolderImages(file=file, system=system, said=said, released=released, problem=problem)


def of_colours(value: Any) -> list[float]:
    """A mean, deviation or fill as three numbers, of one for all colours or one for each.

    >>> of_colours(0.5), of_colours([0.5])
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    """
    values = cast(list[float], value if isinstance(value, list | tuple) else [value])
    values = list(values) * (3 if len(values) == 1 else 1)
    if len(values) != 3:
        raise ValueError(f"a mean or std of {len(values)} numbers is not of three colours")
    return values


def _method(value: str) -> str:
    """Without whose filter it is: Pillow's and torchvision's are one to a file."""
    return value.removeprefix("pil_").removeprefix("torch_")


def images_of_profile(profile: Profile, config: Siglip, file: Path) -> FolderImages:
    """The same for a folder that holds a profile of ours: released if it is a system's own."""
    pad = profile.text.pad if profile.text.pad in (0, 1) else 0
    image = profile.image
    systems: dict[str, ProfileName] = {
        "tf": "big_vision",
        "torch": "transformers",
        "pil": "open_clip",
    }
    system = systems[image.resize.split("_")[0]]
    square = image.res if system == "open_clip" else None
    released = custom_profile(config, pad, system, res=square).image
    return FolderImages(file=file, system=system, said=image, released=released)


def preprocessing_notes(record: dict[str, Any] | None, to: str, config: Siglip) -> list[str]:
    """What a user should know of a `FolderImages.record`, a line each.

    Args:
      to: the format that was written.
      config: of the model.
    """
    if record is None:
        return []
    if record["problem"]:
        return [
            f"the source's {record['file']} asks for what siglip_jax does not do and cannot keep "
            f"({record['problem']}); what {to} says is as for the released weights"
        ]
    rows: dict[str, dict[str, str | None]] = record["settings"]
    notes: list[str] = []
    kept = [name for name in rows if name not in record["lost"]]
    if kept:
        said = ", ".join(f"{n} {rows[n]['source']} ({rows[n]['released']})" for n in kept)
        notes.append(f"images are prepared as the source says (as released in brackets): {said}")
    if record["lost"]:
        said = ", ".join(
            f"{n} {rows[n]['source']} ({rows[n]['written'] or 'not said'})" for n in record["lost"]
        )
        notes.append(
            f"{to} cannot say how the source prepares images, so that scores there will differ; "
            f"what it says instead is in brackets: {said}"
        )
    if to == "transformers" and "max_patches" in rows and config.naflex:
        notes.append(
            "transformers' Siglip2Processor prepares 256 patches of 16 pixels whatever its folder "
            f"says: give it max_num_patches={rows['max_patches']['written']}, or use "
            "AutoImageProcessor"
        )
    return notes
