"""The fields of the .json beside the images of a webdataset tar, as img2dataset writes them."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence

from siglip_jax.data.failures import SettingError
from siglip_jax.data.kept import WITH_COLUMNS, fields_of, refuse_not_there
from siglip_jax.data.storage import Stored
from siglip_jax.data.tar_stream import Damaged, members

FIELDS = "json"  # the ending of the file that has them
# How much is looked at for a field: one may be left out where it has no value.
_TARS, _MEMBERS, _FILES = 4, 1000, 100


def refuse_no_such_fields(files: Sequence[Stored], names: Sequence[str]) -> None:
    """Raises a SettingError if one of `names` is no field of the first samples.

    A tar that cannot be read says so when its turn comes.
    """
    seen: dict[str, None] = {}
    described = readable = False
    for file in files[:_TARS]:
        with contextlib.suppress(Damaged, ValueError):
            for data in itertools.islice(_descriptions(file), _FILES):
                described = True
                with contextlib.suppress(ValueError):
                    seen.update(dict.fromkeys(fields_of(data)))
                if set(names) <= set(seen):
                    return
            readable = True
            if described:
                break
    if not readable:
        return
    if not described:
        raise SettingError(
            f"{files[0].name}: there is no .json beside its images that has fields",
            "keep",
            f"leave out {{}}; columns are in {WITH_COLUMNS}",
        )
    refuse_not_there(files[0].name, seen, names)


def _descriptions(file: Stored) -> Iterator[bytes | None]:
    for member in itertools.islice(members(file.where), _MEMBERS):
        if member.name.lower().endswith(f".{FIELDS}") and not member.link:
            yield member.read()
