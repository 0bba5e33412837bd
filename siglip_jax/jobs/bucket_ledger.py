"""Which shards of a job in a bucket are done, told by few objects."""

from siglip_jax.data.failures import SettingError
from siglip_jax.jobs.bucket import BucketPath, Changed, Place, Version
from siglip_jax.jobs.entry import Entry
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.ledger_blocks import block_bytes, block_name, block_of, blocks, read_blocks


class BucketLedger(Ledger):
    """The entries of a job in a bucket, see `siglip_jax.jobs.ledger_blocks`.

    It is read once; what others have done since, `look` says.

    Args:
      shards: of the job.
      own: those that this process does, and no other; default: all.
    """

    def __init__(self, folder: BucketPath, shards: int, own: range | None = None) -> None:
        self._bucket, self._all = folder, range(shards)
        self._share = self._all if own is None else own
        # The objects of this process as it wrote or found them, by their names.
        self._before: dict[str, Version] = {}
        self._changed: set[range] = set()
        super().__init__(folder, own)

    def _begin(self) -> None:
        found = read_blocks(self._bucket)
        own = {block_name(block) for block in blocks(self._share)}
        # What was written when the work was divided otherwise may be older: it gives way.
        for name in sorted(found, key=lambda name: (name in own, name)):
            for entry in found[name].entries:
                self._know(entry)
        self._before = {name: found[name].version for name in own & set(found)}

    def look(self) -> None:
        """Learns what others have done."""
        if self._share == self._all:
            return
        for block in read_blocks(self._bucket).values():
            for entry in block.entries:
                if entry.shard not in self._share:
                    self._know(entry)

    def done(self, shard: int) -> bool:
        return shard in self._known

    def add(self, entry: Entry) -> None:
        self._put(block_of(entry.shard, self._share), entry)
        self._know(entry)

    def forget(self, shard: int) -> None:
        """Makes a shard one that is to be done, once `flush` is called."""
        self._unknown(shard)
        self._changed.add(block_of(shard, self._share))

    def flush(self) -> None:
        for block in sorted(self._changed, key=lambda block: block.start):
            self._put(block)
        self._changed.clear()

    def compact(self) -> None:
        """Writes what it knows as one process would have, however the work was divided before."""
        whole = {block_name(block): block for block in blocks(self._all)}
        there = set((self._bucket / "ledger").children())
        if there <= set(whole):
            return
        found = read_blocks(self._bucket)
        for name, block in whole.items():
            data = self._bytes(block)
            if data is not None and (name not in found or found[name].version.data != data):
                (self._bucket / "ledger" / name).write_bytes(data)
                self._before[name] = Version(data)
        for name in found.keys() - whole.keys():
            (self._bucket / "ledger" / name).unlink(missing_ok=True)

    def _bytes(self, block: range, *more: Entry) -> bytes | None:
        """The object of a block; None where nothing of it is done."""
        entries = {shard: self._known[shard] for shard in block if shard in self._known}
        entries |= {entry.shard: entry for entry in more}
        return block_bytes(entries[shard] for shard in sorted(entries)) if entries else None

    def _put(self, block: range, *more: Entry) -> None:
        name, data = block_name(block), self._bytes(block, *more) or block_bytes([])
        try:
            path = self._bucket / "ledger" / name
            self._before[name] = path.replace_with(data, self._before.get(name))
        except Changed as error:
            raise SettingError(
                f"{self._bucket}: another process does the same shards; what is finished is kept",
                "part",
                "let one of them end, or divide the work with {}",
            ) from error


def make_ledger(folder: Place, shards: int, own: range | None) -> Ledger:
    """The ledger of a job, on a disk or in a bucket; `own` shards, where it is divided."""
    if isinstance(folder, BucketPath):
        return BucketLedger(folder, shards, own)
    return Ledger(folder, own)
