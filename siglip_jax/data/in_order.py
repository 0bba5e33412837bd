"""A dataset of pairs once through, as items for the pipeline of scoring."""

from collections.abc import Iterator

from siglip_jax.data.item import Item
from siglip_jax.data.pair import Pairs


def items_of(pairs: Pairs, first: int = 0) -> Iterator[Item]:
    """The images of a dataset in order, from index `first` on, or why one cannot be read.

    >>> class Two:
    ...     def __len__(self):
    ...         return 2
    ...     def __getitem__(self, index):
    ...         if index:
    ...             raise ValueError("b.jpg: cannot be read: no such file")
    ...         return "a.jpg", b"...", ("a dog",)
    >>> [(item.key, item.error) for item in items_of(Two())]
    [('a.jpg', None), ('1', 'b.jpg: cannot be read: no such file')]
    """
    for index in range(first, len(pairs)):
        try:
            key, image, _ = pairs[index]
        except ValueError as error:
            yield Item(str(index), error=str(error))
        else:
            yield Item(key, image)
