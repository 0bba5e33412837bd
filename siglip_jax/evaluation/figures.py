"""What an evaluation got wrong, drawn: confusion and similarity matrices, and the worst errors."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.messages import counted, optional_package

_WHY = "it draws evaluations"
# More cells than this are shown by colour alone.
_WRITTEN = 400


def _figure(rows: int, columns: int) -> Any:
    module: Any = optional_package("matplotlib.figure", why=_WHY)
    size = [min(max(0.32 * count + 2.4, 4.0), 24.0) for count in (columns, rows)]
    return module.Figure(figsize=tuple(size), layout="constrained")


def _named(axes: Any, names: Sequence[str], along: str) -> None:
    # A name may hold a dollar sign, which is no formula.
    ticks = {"x": axes.set_xticks, "y": axes.set_yticks}[along]
    turned: dict[str, Any] = {"rotation": 90} if along == "x" else {}
    ticks(range(len(names)), [_short(name) for name in names], parse_math=False, **turned)


def _short(name: str, most: int = 28) -> str:
    words = " ".join(str(name).split())
    return words if len(words) <= most else f"{words[: most - 3]}..."


def confusion_matrix(right: Any, predicted: Any, classes: int) -> np.ndarray:
    """(classes, classes) counts: of images of a class (row), how many were taken for which.

    Args:
      right, predicted: (n,) indices of classes.
      classes: how many there are.

    Raises:
      ValueError: if these are no indices of classes, or not as many.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = []
    for what, given in (("right", right), ("predicted", predicted)):
        array = np.asarray(given)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"{what}: expected indices of classes of shape (n,), got {array.dtype} of shape "
                f"{array.shape}"
            )
        if array.size and not (array.min() >= 0 and array.max() < classes):
            raise ValueError(
                f"{what}: expected indices in 0..{classes - 1}, got {array.min()}..{array.max()}"
            )
        pairs.append(array)
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(f"{len(pairs[0]):,} right classes for {len(pairs[1]):,} predicted ones")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, tuple(pairs), 1)
    return counts


def confusion_figure(right: Any, predicted: Any, names: Sequence[str], *, most: int = 40) -> Any:
    """A `matplotlib.figure.Figure` of which class was taken for which.

    Colours are shares of a row, the images of a class; numbers are counts.

    Args:
      right, predicted: (n,) indices of classes.
      names: of the classes.
      most: classes that are shown; of more, those that are confused most, and the title says so.

    Raises:
      ValueError: as `confusion_matrix`; if there is no name, or matplotlib is not installed.
    """
    if not len(names):
        raise ValueError("there is no class; names is empty")
    counts = confusion_matrix(right, predicted, len(names))
    wrong = counts - np.diag(np.diag(counts))
    chosen = np.arange(len(names))
    title = f"{counted(int(wrong.sum()), 'error')} of {counted(int(counts.sum()), 'image')}"
    if len(names) > most:
        order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
        chosen = np.sort(order[:most])
        title += f"; the {most} of {len(names):,} classes that are confused most"
    shown = counts[np.ix_(chosen, chosen)]
    shares = shown / np.maximum(counts[chosen].sum(axis=1, keepdims=True), 1)
    figure = _figure(len(chosen), len(chosen))
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, shrink=0.7)
    _named(axes, [names[int(index)] for index in chosen], "x")
    _named(axes, [names[int(index)] for index in chosen], "y")
    axes.set(xlabel="predicted", ylabel="right", title=title)
    if shown.size <= _WRITTEN:
        for (row, column), count in np.ndenumerate(shown):
            color = "white" if shares[row, column] > 0.6 else "black"
            if count:
                axes.text(column, row, str(count), ha="center", va="center", color=color)
    return figure


def similarity_figure(scores: Any, rows: Sequence[str], columns: Sequence[str]) -> Any:
    """A `matplotlib.figure.Figure` of a matrix of scores, such as images by texts.

    Args:
      scores: (rows, columns) cosines, logits or probabilities.
      rows, columns: what to call each.

    Raises:
      ValueError: if these are of other lengths than `scores`, a score is NaN or infinite, or
        matplotlib is not installed.
    """
    array = np.asarray(scores, np.float64)
    if array.shape != (len(rows), len(columns)) or not array.size:
        raise ValueError(
            f"expected scores of shape {(len(rows), len(columns))}, for "
            f"{counted(len(rows), 'row')} and {counted(len(columns), 'column')}, got {array.shape}"
        )
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"the score of {rows[row]!r} and {columns[column]!r} is NaN or infinite")
    figure = _figure(*array.shape)
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(array, cmap="viridis", aspect="auto"), ax=axes, shrink=0.7)
    _named(axes, columns, "x")
    _named(axes, rows, "y")
    if array.size <= _WRITTEN:
        middle = (array.min() + array.max()) / 2
        for (row, column), score in np.ndenumerate(array):
            color = "black" if score > middle else "white"
            said = f"{score:.2g}"
            axes.text(column, row, said, ha="center", va="center", color=color, fontsize=8)
    return figure


def worst_errors(scores: Any, right: Any, count: int = 24) -> np.ndarray:
    """Indices of the images that are wrong by most, worst first; fewer if fewer are wrong.

    By most is: the score of the class they are taken for, less that of the right one.

    Args:
      scores: (n, classes) logits or probabilities.
      right: (n,) indices of the right classes.

    >>> worst_errors([[1, 0], [0, 3], [5, 0]], [0, 0, 1]).tolist()
    [2, 1]
    """
    array, truth = np.asarray(scores), np.asarray(right)
    confusion_matrix(truth, truth, array.shape[1])
    if len(array) != len(truth):
        raise ValueError(f"{len(array):,} rows of scores for {len(truth):,} right classes")
    margin = array.max(axis=1) - array[np.arange(len(array)), truth]
    order = np.argsort(-margin, kind="stable")
    return order[margin[order] > 0][:count]


def errors_sheet(
    path: str | os.PathLike[str],
    images: Sequence[Any],
    scores: Any,
    right: Any,
    names: Sequence[str],
    *,
    count: int = 24,
) -> int:
    """Writes a contact sheet of the worst errors, and says how many are on it.

    Each has what it is taken for with its score, and what it is. An image that cannot be read is
    a field with its name.

    Args:
      path: ends in .png or .html; replaced as a whole.
      images: (n,) paths, or bytes of files.
      scores, right: as for `worst_errors`.
      names: of the classes.
      count: errors on the sheet, at most.

    Raises:
      ValueError: if there is no error to show, lengths disagree, or `path` ends otherwise.
    """
    from siglip_jax.search.sheet import Shown, check_sheet, write_sheet

    check_sheet(Path(path))
    array, truth = np.asarray(scores), np.asarray(right)
    if array.shape != (len(images), len(names)):
        raise ValueError(
            f"expected scores of shape {(len(images), len(names))}, for "
            f"{counted(len(images), 'image')} and {counted(len(names), 'class', 'classes')}, got "
            f"{array.shape}"
        )
    worst = worst_errors(array, truth, count)
    if not len(worst):
        raise ValueError("there is no error to show: every image is right")
    shown = []
    for index in worst:
        taken = int(array[index].argmax())
        image = images[index]
        where = None if isinstance(image, bytes) else os.fspath(image)
        shown.append(
            Shown(
                key=f"is {names[int(truth[index])]}",
                score=f"{names[taken]} {array[index, taken]:.3g}",
                image=image if where is None else where,
                text=where or f"image {index}",
                file=None if where is None else str(Path(where).absolute()),
            )
        )
    title = f"{counted(len(worst), 'error')}, worst first: taken for, with its score; what it is"
    write_sheet(Path(path), [(title, shown)])
    return len(worst)
