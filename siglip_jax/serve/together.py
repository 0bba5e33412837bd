"""Coroutines that are awaited together, of which the first error ends the others."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def together(waiting: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """What each gives, in order.

    Raises:
      Exception: the first that one of them raises; the others are cancelled.

    >>> async def double(x): return 2 * x
    >>> asyncio.run(together(map(double, range(3))))
    [0, 2, 4]
    """
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
