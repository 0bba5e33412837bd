"""A job that would find its own files in its source, told before it writes any."""

import re
from collections.abc import Sequence

from siglip_jax.data.failures import SettingError, protocol_of
from siglip_jax.data.storage import is_pattern, without_braces
from siglip_jax.jobs.bucket import BucketPath, Place

# Files of every kind that a job writes.
_WRITTEN = ("manifest.json", "summary.json", "data/00000.parquet", "metadata/metadata_0000.parquet")
_WRITTEN += tuple(f"{name}/{name}_0000.npy" for name in ("img_emb", "text_emb", "features"))
_WRITTEN += ("labels/00000.npy", "ledger/00000-00255.json")
_SAME = {"s3a": "s3", "gcs": "gs"}


def refuse_own_output(folder: Place, specs: Sequence[str]) -> None:
    """Refuses a prefix of a bucket that a listing of the source goes through.

    In a folder on a disk what jobs have written is left out of a listing (`data.storage`), which
    sees it by files that a bucket's would have to ask for.

    Args:
      specs: what `open_items` was given.

    Raises:
      SettingError: if the job's files would be among those of the source.
    """
    if not isinstance(folder, BucketPath):
        return
    for spec in specs:
        for name in without_braces(spec.removeprefix("texts:")):
            if _lists(name, folder.where):
                raise SettingError(
                    f"{folder} lies in the source, {spec}, whose listing would have the job's own "
                    "files in it",
                    "out",
                    "choose another prefix as {}, or name the source by a pattern, such as *.tar",
                )


def _lists(name: str, out: str) -> bool:
    """Whether files of a job at `out` are among those that a source of this name has.

    >>> _lists("s3://b/images/", "s3://b/images/out"), _lists("s3://b/images", "s3://b/images2")
    (True, False)
    >>> _lists("s3://b/*.tar", "s3://b/out"), _lists("s3://b/**/*.parquet", "s3://b/out")
    (False, True)
    """
    (store, where), (own, folder) = _parted(name), _parted(out)
    if not store or store != own:
        return False
    if not is_pattern(name):
        return f"{folder}/".startswith(f"{where}/")
    from fsspec.utils import glob_translate

    matches = re.compile(glob_translate(where)).match
    return any(matches(f"{folder}/{file}") for file in _WRITTEN)


def _parted(where: str) -> tuple[str, str]:
    """The store, and the path in it."""
    protocol = protocol_of(where)
    return _SAME.get(protocol, protocol), where.partition("://")[2].rstrip("/")
