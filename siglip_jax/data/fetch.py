"""Images that are named, not held: remote ones are fetched some ahead."""

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from siglip_jax.data.failures import PassingError
from siglip_jax.data.item import Item
from siglip_jax.data.storage import is_remote, local, read_bytes

# Enough that waiting for a bucket overlaps; so many encoded images are in memory.
AHEAD = 16


def fetched(
    items: Iterator[Item], finish: Callable[[Item], Item] = lambda item: item
) -> Iterator[Item]:
    """`items` with the bytes in place of a remote image's URL, in the same order.

    The path of a local image stays a path, which is read where it is decoded. What
    cannot be fetched is given with its error.

    Args:
      finish: what else is to be done to an item, before its URL is replaced.
    """
    pending: collections.deque[Item | Future[Item]] = collections.deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for item in items:
            if isinstance(item.image, str) and is_remote(item.image):
                pool = pool or ThreadPoolExecutor(AHEAD)
                pending.append(pool.submit(_fetch, item, finish))
            else:
                item = finish(item)
                where = item.image
                pending.append(
                    item._replace(image=local(where)) if isinstance(where, str) else item
                )
            while len(pending) > AHEAD or (pending and isinstance(pending[0], Item)):
                yield _ready(pending.popleft())
        while pending:
            yield _ready(pending.popleft())
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _ready(waiting: Item | Future[Item]) -> Item:
    return waiting if isinstance(waiting, Item) else waiting.result()


def _fetch(item: Item, finish: Callable[[Item], Item]) -> Item:
    try:
        item = finish(item)
        where = item.image
        return item._replace(image=read_bytes(where)) if isinstance(where, str) else item
    except ValueError as error:
        passing = isinstance(error, PassingError)
        return Item(item.key, error=str(error), stamp=item.stamp, passing=passing, kept=item.kept)
