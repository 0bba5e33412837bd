"""Position embeddings on another grid, by each method that some system uses."""

import numpy as np

from siglip_jax.weights.posemb import resample_posemb


def interpolated(table: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    """A (g, g, d) table on a (height, width) grid, float32.

    Args:
      table: learned position embedding.
      method: "corners" is big_vision's, corners aligned; "bilinear" and "bicubic" are
        torch's `F.interpolate` (the latter transformers'); with "_antialias" the filter is
        as wide as an output cell where the grid shrinks, as in big_vision's NaFlex
        (bilinear) and timm (bicubic).

    >>> table = np.arange(4.0).reshape(2, 2, 1)
    >>> interpolated(table, 3, 3, "bilinear")[0, :, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    grid, _, width_of_model = table.shape
    if method == "corners" and height == width:
        flat = np.asarray(table, np.float32).reshape(1, grid * grid, width_of_model)
        return resample_posemb(flat, height * width).reshape(height, width, width_of_model)
    rows, columns = _weights(grid, height, method), _weights(grid, width, method)
    return np.einsum("yg,xh,ghd->yxd", rows, columns, table, optimize=True).astype(np.float32)


def _weights(old: int, new: int, method: str) -> np.ndarray:
    """(new, old) weights of one axis; pixel centres lie at one half."""
    kernel, _, antialias = method.partition("_")
    if kernel == "corners":
        centre = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    else:
        centre = (np.arange(new) + 0.5) * old / new - 0.5
    stretch = max(old / new, 1.0) if antialias else 1.0
    # Room beyond both edges: what falls there belongs to the edge (torch without antialias)
    # or is dropped, the rest made to sum to one (with antialias).
    reach = int(np.ceil(2 * stretch)) + 1
    index = np.arange(-reach, old + reach)
    distance = np.abs(centre[:, None] - index) / stretch
    # torch's constant is -0.75 without antialias and -0.5 with it.
    a = -0.5 if antialias else -0.75
    weight = _cubic(distance, a) if kernel == "bicubic" else np.maximum(1 - distance, 0)
    out = weight[:, reach:-reach]
    if not antialias:
        out[:, 0] += weight[:, :reach].sum(1)
        out[:, -1] += weight[:, -reach:].sum(1)
    return out / out.sum(1, keepdims=True)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
