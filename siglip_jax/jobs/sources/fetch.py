"""Pictures that are named, not held: remote ones are fetched some ahead."""

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from siglip_jax.data.item import Item
from siglip_jax.jobs.sources.storage import is_remote, local, read_bytes

# Enough that waiting for a bucket overlaps; so many encoded pictures are in memory.
_AHEAD = 16


def fetched(items: Iterator[Item]) -> Iterator[Item]:
    """`items` with the bytes in place of a remote picture's URL, in the same order.

    The path of a local picture stays a path, which is read where it is decoded. What
    cannot be fetched is given with its error.
    """
    pending: collections.deque[Item | Future[Item]] = collections.deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for item in items:
            if not isinstance(item.image, str) or not is_remote(item.image):
                where = item.image
                pending.append(
                    item._replace(image=local(where)) if isinstance(where, str) else item
                )
            else:
                pool = pool or ThreadPoolExecutor(_AHEAD)
                pending.append(pool.submit(_fetch, item))
            while len(pending) > _AHEAD or (pending and isinstance(pending[0], Item)):
                yield _ready(pending.popleft())
        while pending:
            yield _ready(pending.popleft())
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _ready(waiting: Item | Future[Item]) -> Item:
    return waiting if isinstance(waiting, Item) else waiting.result()


def _fetch(item: Item) -> Item:
    try:
        return item._replace(image=read_bytes(item.image))
    except ValueError as error:
        return Item(item.key, error=str(error))
