"""transformers' test images for NaFlex: drawn, so that nothing need be downloaded.

A blue circle with a green border on red, in three sizes, seven texts, and the logits that
transformers 5 publishes for both NaFlex checkpoints (`tests/models/siglip2` and its
converter's expected outputs, tolerance 1e-3).
"""

import numpy as np
from PIL import Image, ImageDraw

SIZES = ((224, 224), (1024, 1024), (224, 1024))  # height, width
TEXTS = (
    "circle",
    "ellipsoid",
    "blue circle on red background",
    "blue circle with green border on red background",
    "green circle on red background",
    "a dog",
    "a blue dog with a green border on a red background",
)
# For each checkpoint: one row a text, one column an image.
LOGITS_PER_TEXT = {
    "siglip2_b16_naflex": (
        (1.0195, -0.0280, -1.4468),
        (-4.5395, -6.2269, -1.5667),
        (4.1757, 5.0358, 3.5159),
        (9.4264, 10.1879, 6.3353),
        (2.4409, 3.1058, 4.5491),
        (-12.3230, -13.7355, -13.4632),
        (1.1520, 1.1687, -1.9647),
    ),
    "siglip2_so400m16_naflex": (
        (0.9422, 0.5540, -2.4405),
        (-7.3522, -9.4931, -6.3499),
        (5.7852, 6.7288, 7.7893),
        (9.9881, 10.8136, 9.2121),
        (5.3660, 5.7746, 8.4130),
        (-12.7218, -14.2631, -13.6442),
        (0.6384, 0.4278, -0.9022),
    ),
}


def pictures() -> dict[str, np.ndarray]:
    """Name to (height, width, 3) uint8 pixels, in the order of the columns.

    >>> {name: picture.shape for name, picture in pictures().items()}["circle 224x1024"]
    (224, 1024, 3)
    """
    return {f"circle {height}x{width}": _circle(height, width) for height, width in SIZES}


def _circle(height: int, width: int) -> np.ndarray:
    image = Image.new("RGB", (width, height), "red")
    x, y = width // 2, height // 2
    radius = min(x, y) // 8 * 7
    ImageDraw.Draw(image).ellipse(
        (x - radius, y - radius, x + radius, y + radius),
        fill="blue",
        outline="green",
        width=width // 20,
    )
    return np.asarray(image)
