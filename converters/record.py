"""What a conversion did: the facts a certificate is made of."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siglip_jax.config import Siglip, Tower, to_dict
from siglip_jax.weights.digest import combined_digest

from .tensors import PlanStep

_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What `convert` returns.

    Attributes:
      source, target: format, path, and the SHA-256 of every file.
      config, tower: the architecture, and the only tower if not all was converted.
      plan: every tensor written, and what it was made of.
      dropped: stored tensors that were left out, and by which rule.
      added: tensors that the target has and big_vision has not, and what they are.
      parameters: how many numbers were converted, without what was added.
      tensors: SHA-256 of each of big_vision's tensors, in loop form, as written.
      exact: whether no dtype changed, so that `tensors` are those of the source.
      verified: whether the target was read back and has the same `tensors`.
      preprocessing: which of the source's own settings of image preprocessing are kept and
        which are lost (`FolderImages.record`); None where it has those of the released weights.
      notes: what a user should know, a line each.
    """

    source: dict[str, Any]
    target: dict[str, Any]
    config: Siglip
    tower: Tower | None
    plan: list[PlanStep]
    dropped: dict[str, str]
    added: dict[str, str]
    parameters: int
    tensors: dict[str, str]
    exact: bool
    verified: bool
    preprocessing: dict[str, Any] | None
    notes: tuple[str, ...]

    @property
    def weights_sha256(self) -> str:
        """One digest of all `tensors`: the same for the same weights in any format."""
        return combined_digest(self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["config"] = to_dict(self.config)
        plain["plan"] = [dataclasses.asdict(step) for step in self.plan]
        plain["notes"] = list(self.notes)
        plain["weights_sha256"] = self.weights_sha256
        return plain


def file_digests(files: Iterable[Path], folder: Path) -> dict[str, str]:
    """SHA-256 of files, by their path in `folder`, or in their own where they are elsewhere."""

    def name(file: Path) -> str:
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
        return f"{file.parent.name}/{file.name}"

    return {name(file): _file_digest(file) for file in files}


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
