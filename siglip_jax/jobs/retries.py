"""Which finished shards of a job are done again."""

import warnings

from siglip_jax.jobs.bucket import Place
from siglip_jax.jobs.checked import damage
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.options import Options
from siglip_jax.jobs.result import SUMMARY


def forget_what_is_done_again(
    folder: Place, ledger: Ledger, options: Options, *, shared: bool
) -> None:
    """Makes shards ones to be done that are damaged, or have errors that are to be tried again.

    Args:
      shared: other processes may write to the folder; errors are left as they are then.
    """
    begun = not (folder / SUMMARY).exists()
    asked = bool(options.retry)
    for one in list(damage(folder, ledger.entries().values(), missing=asked, begun=begun)):
        if not shared and one.path.exists():
            warnings.warn(f"{one}; its shard is done again", stacklevel=3)
        _forget(folder, ledger, one.shard)
    if not shared:
        _forget_errors(folder, ledger, options)
    ledger.flush()


def _forget_errors(folder: Place, ledger: Ledger, options: Options) -> None:
    """Those in which something failed that is to be tried again."""
    finished = (folder / SUMMARY).exists()
    for shard, entry in ledger.entries().items():
        # An earlier version did not say which errors may pass.
        passing = entry.errors if entry.passing is None and options.retry else entry.passing
        if entry.errors if options.retry == "all" else passing and (options.retry or not finished):
            _forget(folder, ledger, shard)


def _forget(folder: Place, ledger: Ledger, shard: int) -> None:
    ledger.forget(shard)
    (folder / SUMMARY).unlink(missing_ok=True)
