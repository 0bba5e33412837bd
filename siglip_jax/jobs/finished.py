"""What of a job's output may be read: all of it, checked."""

from siglip_jax.jobs.bucket import Place
from siglip_jax.jobs.checked import damage
from siglip_jax.jobs.ledger import Entry, read_entries
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.messages import counted


def finished_entries(folder: Place, manifest: Manifest, *, unfinished: bool) -> list[Entry]:
    """The entries of the shards of a job.

    Args:
      unfinished: take the shards that are done, of a job that is not.

    Raises:
      ValueError: one line: it is unfinished, or files of it are missing or damaged.
    """
    entries = read_entries(folder)
    if len(entries) < manifest.source["shards"] and not unfinished:
        raise ValueError(
            f"{folder}: {len(entries):,} of {counted(manifest.source['shards'], 'shard')} are "
            "done; run the job to its end, or take what there is with unfinished"
        )
    for damaged in damage(folder, entries):
        raise ValueError(f"{damaged}; the job's command mends that")
    return entries
