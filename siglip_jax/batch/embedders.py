"""Embeddings of a column of images or texts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from siglip_jax.batch.columns import Columns
from siglip_jax.batch.items import image_items, text_items
from siglip_jax.batch.worker_model import WorkerModel
from siglip_jax.data.columns import IMAGE_COLUMNS, TEXT_COLUMNS

if TYPE_CHECKING:
    from siglip_jax.scoring import Scorer
    from siglip_jax.scoring.rows import Rows


class BatchCallable(ABC):
    """What the callables share: settings that are pickled, and items through the pipeline.

    Args:
      model: a name or path as for `siglip_jax.load`, to be had on every worker.
      error_column: of the column that says why a row has no numbers, empty where all is well.
      keep: columns of the batch to hand on; default: all.
      options: batch_size, threads, and options of `siglip_jax.load` (`WorkerModel`).
    """

    _LISTS: Sequence[str] = ()  # columns that are made, of a list of texts a row

    def __init__(
        self,
        model: Any,
        *,
        error_column: str = "error",
        keep: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(keep, str):
            raise ValueError(f"keep must be a list of columns, got the string {keep!r}")
        self._worker_model = WorkerModel.of(model, **options)
        self._error_column, self._keep = error_column, keep if keep is None else list(keep)

    def __call__(self, batch: Any) -> Any:
        """The batch with the columns that are made of it."""
        columns = Columns(batch)
        return columns.joined(self.made(columns), self._keep, self._LISTS)

    @abstractmethod
    def made(self, columns: Columns) -> dict[str, Any]:
        """The new columns of a batch: numbers in arrays (n, ...), texts in lists."""

    def load(self) -> "Scorer":
        """Loads the model here, unless this process has; a call does so as well.

        Raises:
          ValueError: one line that names this host, if it cannot be loaded.
        """
        return self._worker_model.scorer(texts=self._needs_texts)

    @property
    @abstractmethod
    def _needs_texts(self) -> bool:
        """Whether there is anything to tokenize."""

    def _rows(self, items: Iterable[Any], **options: Any) -> "tuple[np.ndarray, Rows]":
        """Rows (n, d) of the items that are good, and what became of all."""
        from siglip_jax.scoring.preparation import warn_of_rotation

        scorer = self.load()
        try:
            z, rows = scorer.embed_items(items, **options)
        except Exception as error:
            if (said := self._worker_model.out_of_memory(error)) is None:
                raise
            raise said from error
        warn_of_rotation(sum(item.rotated for item in rows.items))
        return z, rows

    def _errors(self, rows: "Rows") -> dict[str, Any]:
        # "" and not None: of a batch that is all well, a column of None would have no type.
        return {self._error_column: [item.error or "" for item in rows.items]}


class _Embedder(BatchCallable):
    """From one column to a column of embeddings."""

    _WHAT: str
    _USUAL: Sequence[str]
    _ITEMS: Callable[[Sequence[Any]], Iterable[Any]]

    def __init__(self, column: str | None, embedding_column: str, model: Any, **options: Any):
        super().__init__(model, **options)
        self._column, self._embedding_column = column, embedding_column

    def made(self, columns: Columns) -> dict[str, Any]:
        values = columns.values(columns.chosen(self._WHAT[:-1], self._column, self._USUAL))
        z, rows = self._rows(type(self)._ITEMS(values), what=self._WHAT)
        return {self._embedding_column: spread(z, rows), **self._errors(rows)}

    @property
    def _needs_texts(self) -> bool:
        return self._WHAT == "texts"


class ImageEmbedder(_Embedder):
    """Embeds a column of images: bytes of files, paths, URLs, Pillow images, uint8 arrays.

    A batch is a dict of arrays or lists, a pandas DataFrame or a pyarrow Table, and what comes
    back is of the same kind: the columns of the batch, `embedding` (n, d) float32 of unit norm,
    and `error`. The embedding of an image that cannot be read is NaN, and its error says why.

    Embeddings are those of `Scorer.embed_images` with the same batch sizes, bit for bit if no
    image is in error; batches divided in another way differ by rounding, below 1e-6.

    Args:
      model: a name or path as for `siglip_jax.load`, to be had on every worker.
      image_column: default: the first that is called as usual, such as image.
      embedding_column, error_column: what the new columns are called.
      keep: columns of the batch to hand on; default: all.
      options: batch_size (examples a step; default: 32 on a CPU, 256 on each other device),
        threads (that decode), and options of `siglip_jax.load`.

    Raises:
      ValueError: if the model is no name. Called, one line: if a column is missing, the batch is
        none, the model cannot be loaded on this worker, or memory does not suffice.

    >>> embedder = ImageEmbedder("siglip_emoji", batch_size=1)
    >>> made = embedder({"image": [np.zeros((9, 9, 3), np.uint8), b"?"]})
    >>> made["embedding"].shape, made["error"]
    ((2, 192), ['', 'not an image in a known format'])
    """

    _WHAT, _USUAL, _ITEMS = "images", IMAGE_COLUMNS, image_items

    def __init__(
        self,
        model: Any,
        *,
        image_column: str | None = None,
        embedding_column: str = "embedding",
        **options: Any,
    ) -> None:
        super().__init__(image_column, embedding_column, model, **options)


class TextEmbedder(_Embedder):
    """Embeds a column of texts; all else is as for `ImageEmbedder`.

    Args:
      text_column: default: the first that is called as usual, such as text.

    >>> made = TextEmbedder("siglip_emoji", batch_size=1)({"text": ["brown circle", None]})
    >>> made["embedding"].shape, made["error"]
    ((2, 192), ['', 'there is no text'])
    """

    _WHAT, _USUAL, _ITEMS = "texts", TEXT_COLUMNS, text_items

    def __init__(
        self,
        model: Any,
        *,
        text_column: str | None = None,
        embedding_column: str = "embedding",
        **options: Any,
    ) -> None:
        super().__init__(text_column, embedding_column, model, **options)


def spread(good: np.ndarray, rows: "Rows") -> np.ndarray:
    """Rows (n, d) of all items, float32, of those of the good ones; NaN where one is in error."""
    if len(good) == len(rows.items):
        return good
    whole = np.full((len(rows.items), good.shape[1]), np.nan, np.float32)
    whole[rows.good] = good
    return whole
