"""A part of a job that one process does alone, where processes share no disk to agree on it."""

import contextlib
from typing import NamedTuple

from siglip_jax.data.failures import SettingError
from siglip_jax.jobs.bucket import BucketPath, Place


class Part(NamedTuple):
    """The `number`-th of `count`, from 1.

    >>> Part.of("2/3")
    Part(number=2, count=3)
    """

    number: int
    count: int

    @classmethod
    def of(cls, part: "str | tuple[int, int]") -> "Part":
        """A part by two numbers, or as the command has it.

        Raises:
          ValueError: one line, if it is none.
        """
        with contextlib.suppress(ValueError, TypeError):
            number, count = (int(n) for n in (part.split("/") if isinstance(part, str) else part))
            if 1 <= number <= count:
                return cls(number, count)
        raise ValueError(
            f"expected one of so many parts of a job, such as 1/8 to 8/8, got {part!r}"
        )

    def shards(self, count: int) -> range:
        """Which of `count` shards are its own: neighbours, and always the same.

        >>> [list(Part(n, 3).shards(7)) for n in (1, 2, 3)]
        [[0, 1], [2, 3], [4, 5, 6]]
        """
        return range((self.number - 1) * count // self.count, self.number * count // self.count)

    def __str__(self) -> str:
        return f"part {self.number} of {self.count}"


def own_part(
    folder: Place, part: str | tuple[int, int] | None, *, shared: bool, update: bool
) -> Part | None:
    """The part of a job that this process has; None for all of it, or what it claims.

    Args:
      part, shared, update: of the job's options.

    Raises:
      ValueError: one line: these are not for such a folder, or not for each other.
    """
    import jax

    remote = isinstance(folder, BucketPath)
    if remote and update:
        raise SettingError(
            f"{folder} is in a bucket", "update", "{} is for a folder on a disk; embed anew"
        )
    if part is not None:
        if shared:
            raise SettingError("each process has a part of the work", "shared", "leave out {}")
        return Part.of(part)
    if remote and shared:
        raise SettingError(
            f"{folder} is in a bucket, where processes cannot claim shards",
            "part",
            "divide the work with {} in place of shared",
        )
    if remote and jax.distributed.is_initialized():
        return Part(jax.process_index() + 1, jax.process_count())
    return None
