"""Batches of columns, as engines give and take them.

A dict of arrays or lists (Ray Data, `datasets`), a pandas DataFrame (Spark), a pyarrow Table or
RecordBatch. What is made of a batch is of the same kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from siglip_jax.data.columns import choose_column
from siglip_jax.messages import counted


class Columns:
    """The columns of a batch.

    Raises:
      ValueError: if it is no batch, or its columns differ in length.

    >>> batch = Columns({"key": ["a", "b"]})
    >>> batch.names, len(batch)
    (['key'], 2)
    >>> batch.joined({"embedding": np.zeros((2, 3), np.float32), "error": ["", "?"]}, ["key"])
    {'key': ['a', 'b'], 'embedding': array([[0., 0., 0.],
           [0., 0., 0.]], dtype=float32), 'error': ['', '?']}
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        kind = type(batch)
        package = kind.__module__.partition(".")[0]
        self._arrow = package == "pyarrow" and hasattr(batch, "column_names")
        self._pandas = package == "pandas" and hasattr(batch, "columns")
        if self._arrow:
            self.names = list(batch.column_names)
        elif self._pandas or isinstance(batch, Mapping):
            self.names = list(batch.keys())
        else:
            raise ValueError(
                "expected a batch of columns (a dict, a pandas DataFrame or a pyarrow Table), got "
                f"{kind.__name__}"
            )
        if self._arrow or self._pandas:
            self._rows = len(batch)
            return
        lengths = {name: self._length(name) for name in self.names}
        self._rows = next(iter(lengths.values()), 0)
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in lengths.items())
            raise ValueError(f"the columns of a batch must be of one length: {told}")

    def __len__(self) -> int:
        return self._rows

    def chosen(self, what: str, given: str | None, usual: Sequence[str]) -> str:
        """The name of the column that holds `what`, as `choose_column` finds it.

        Raises:
          SettingError: if there is none.
        """
        return choose_column("the batch", self.names, what, given, usual)

    def values(self, name: str) -> list[Any]:
        """A column, a value a row.

        Raises:
          ValueError: if it is numpy's kind of bytes, which loses zeros at its end.
        """
        column = self._batch[name]
        if self._arrow:
            return column.to_pylist()
        if isinstance(column, np.ndarray) and column.dtype.kind == "S":
            raise ValueError(
                f"column {name} is of numpy's type {column.dtype}, which drops zeros at the end of "
                "a file; use dtype=object"
            )
        return list(column)

    def joined(
        self, made: Mapping[str, Any], keep: Sequence[str] | None, lists: Sequence[str] = ()
    ) -> Any:
        """A batch with the columns of `keep` (all of None), and with those that were made.

        Args:
          made: numbers in arrays (rows, n), or texts in lists.
          lists: which of them have a list of texts a row.

        Raises:
          ValueError: if a column to keep is missing, or one that was made is there already.
        """
        kept = self.names if keep is None else list(keep)
        if missing := [name for name in kept if name not in self.names]:
            raise ValueError(
                f"keep: the batch has no column {missing[0]}; the columns are "
                f"{', '.join(self.names)}"
            )
        if twice := [name for name in made if name in kept]:
            raise ValueError(
                f"the batch has a column {twice[0]} already; give the new one another name, or "
                "leave the old one out with keep="
            )
        if self._arrow:
            return self._joined_arrow(made, kept, lists)
        if self._pandas:
            import pandas

            frame = self._batch[kept].copy()
            for name, values in made.items():
                # A value a row: pandas has no columns of vectors.
                frame[name] = pandas.Series(list(values), frame.index, dtype=object)
            return frame
        return {name: self._batch[name] for name in kept} | dict(made)

    def _joined_arrow(self, made: Mapping[str, Any], kept: list[str], lists: Sequence[str]) -> Any:
        import pyarrow

        columns = {name: self._batch[name] for name in kept}
        for name, values in made.items():
            if isinstance(values, np.ndarray):
                flat: Any = pyarrow.array(values.reshape(-1))
                columns[name] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
            else:
                text = pyarrow.string()
                columns[name] = pyarrow.array(
                    values, pyarrow.list_(text) if name in lists else text
                )
        return type(self._batch).from_pydict(columns)

    def _length(self, name: str) -> int:
        column = self._batch[name]
        if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__len__"):
            raise ValueError(
                f"column {name} is {_said(column)}: that is a row, not a batch; use map_batches "
                "(Ray Data) or batched=True (datasets)"
            )
        return len(column)


def _said(value: object) -> str:
    if isinstance(value, str | bytes):
        return f"{counted(len(value), 'byte')} of {type(value).__name__}"
    return f"one {type(value).__name__}"
