"""What the output folder of a job is of, and no other.

manifest.json        what is computed from what, see `Manifest`
data/00012.parquet   the rows of a shard (or img_emb/, text_emb/, features/, metadata/)
ledger/00012.json    written after them: this shard is done
labels/00000.npy     embeddings of labels, of a score job with --top
claims/00012         who works on a shard, where several processes share the folder
summary.json         written last: the job is finished

In a bucket there are no claims, and `ledger/00000-00255.json` has the entries of these shards
(`siglip_jax.jobs.bucket_ledger`).
"""

import dataclasses
import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any

from siglip_jax.data.failures import SettingError
from siglip_jax.jobs.bucket import BucketPath, Changed, Place, check_bucket
from siglip_jax.jobs.durable import json_bytes, write_json
from siglip_jax.preprocessing.profiles import ADDED, MAX_PIXELS
from siglip_jax.run_folder import Difference, claim_record, differences, make_run_folder

FORMAT = 1
NAME = "manifest.json"
# Not what is computed: the same weights may have two names, any version may go on, and the
# same data may lie elsewhere by then.
_FREE = ("model", "code", "source.origin", "source.contents", "source.updates")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a job computes. Written before its first shard.

    Attributes:
      model: the name it was loaded by.
      space: of the embeddings, see `space_of`; those of unequal spaces must not be mixed.
      t, b: temperature (its logarithm, as in the weights) and bias: a logit is
        exp(t)·zimg·ztxt + b. None of one tower alone, whose rows make no logits.
      job: `kind` "embed" or "score"; `what` "images", "texts" or "pairs"; `format`
        "parquet" or "npy"; `store` "float32", "float16" or "bfloat16"; `layer` of patches;
        for labels `count`, `digest`, `templates`, `top`, and `labels` themselves where there
        are few; `keep`, columns of the source that rows have, with their types.
      source: `identity` of the data, number of `shards`, and what `open_items` was given
        (`origin`; None for a source of one's own). `contents` changes if a file is replaced or
        copied (None if unknown); after `updates` shards are the folder's own, not the source's.
      code: version of this package that began the job.
      format: of the folder.
    """

    model: str
    space: dict[str, Any]
    t: float | None
    b: float | None
    job: dict[str, Any]
    source: dict[str, Any]
    code: str = dataclasses.field(default_factory=lambda: importlib.metadata.version("siglip-jax"))
    format: int = FORMAT


def read_manifest(folder: Place) -> Manifest:
    """The manifest of a job's output.

    Raises:
      ValueError: if there is none, or one of another format.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
    except NotADirectoryError:
        raise ValueError(
            f"{folder} is a file; expected the folder of a job, as embed --out FOLDER writes it"
        ) from None
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no output of a job: there is no {NAME}") from None
    try:
        plain = json.loads(text.decode("utf-8"))
        there = plain["format"]
        if there == FORMAT:
            found = Manifest(**plain)
            if isinstance(image := found.space.get("profile", {}).get("image"), dict):
                # Written before an image profile had these fields, it means what they default to.
                found.space["profile"]["image"] = ADDED | image | {"max_pixels": MAX_PIXELS}
            if found.job.get("layer") == "final":  # as it was called before
                found.job["layer"] = "encoded"
            return found
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not the manifest of a job: {error}") from error
    raise ValueError(f"{path}: of format {there!r}; this version of siglip_jax reads {FORMAT}")


def recorded_space(folder: Place) -> dict[str, Any] | None:
    """The space of the job that `folder` holds; None if there is none yet."""
    return read_manifest(folder).space if (folder / NAME).exists() else None


def check_folder(folder: Place) -> None:
    """Refuses a folder that holds something else, before a model is loaded for it.

    Raises:
      ValueError: if it is a file, holds other files, or cannot be made; if there is no bucket.
    """
    if isinstance(folder, BucketPath):
        there = check_bucket(folder, NAME)
    else:
        there = make_run_folder(folder, NAME, "job")
    if there:
        read_manifest(folder)


def claim_folder(folder: Place, ours: Manifest, *, update: bool = False) -> Manifest:
    """Makes `folder` the output of a job, or finds that it is already; the manifest there.

    Args:
      update: the data may have changed.

    Raises:
      ValueError: if it is another job's; what differs is named, and nothing is touched.
    """
    plain = dataclasses.asdict(ours)
    if not _claimed(folder, plain):
        return ours
    theirs = read_manifest(folder)
    free = set(_FREE)
    if update or theirs.source.get("updates"):
        free |= {"source.shards"}
    if update:
        free |= {"source.identity"}
    found = differences(dataclasses.asdict(theirs), plain, free)
    changed = list(_spoken(found))
    if any(one.name.startswith("job.keep") for one in found):
        changed.insert(0, _other_columns(theirs.job.get("keep", {}), ours.job.get("keep", {})))
    if not changed:
        return theirs
    if theirs.space["weights"] != ours.space["weights"]:
        # Weights say it all: all else that differs with a model would only hide it.
        changed = [f"the model is {theirs.model} there and {ours.model} here (other weights)"]
    more = f"; and {len(changed) - 4} more" if len(changed) > 4 else ""
    problem = f"{folder} holds another job: {'; '.join(changed[:4])}{more}"
    if all(one.name.startswith("source.") for one in found):
        raise SettingError(problem, "update", "choose another folder, or embed what is new with {}")
    raise ValueError(f"{problem}; choose another folder, or what it began with")


def _claimed(folder: Place, plain: dict[str, Any]) -> bool:
    """Has the manifest written if there is none; whether it was there already."""
    if not isinstance(folder, BucketPath):
        path = folder / NAME
        return claim_record(path, lambda: write_json(path, plain))
    if (folder / NAME).exists():
        return True
    try:
        (folder / NAME).replace_with(json_bytes(plain), None)
    except Changed:
        return True
    return False


def _other_columns(there: dict[str, str], here: dict[str, str]) -> str:
    """How the columns differ that rows keep of the source: in names, or in types alone."""
    if set(there) == set(here):
        there, here = ({f"{n} ({kind})": "" for n, kind in own.items()} for own in (there, here))
    names = [", ".join(own) or "none" for own in (there, here)]
    return f"of the source's columns it keeps {names[0]} there and {names[1]} here"


def _spoken(changed: list[Difference]) -> Iterator[str]:
    for name, there, here in changed:
        if name.startswith("source."):
            yield f"the data have changed ({name} is {there!r} there and {here!r} here)"
        elif name == "job.digest":
            yield "the labels differ"
        elif name.startswith("job.keep"):
            continue
        elif name not in ("job.labels", "job.count", "t", "b"):  # these follow from others
            yield f"{name} is {there!r} there and {here!r} here"
