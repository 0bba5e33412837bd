"""Images and texts that come with the package, the same on every machine.

The images are computed in integers, so that no version of NumPy or Pillow changes a
pixel. They are made to disagree: fine detail that antialiasing removes, sides above and
below every model's resolution, aspect ratios that a crop and a squash treat differently.
The texts are made to show each way in which texts are prepared.
"""

import hashlib
from pathlib import Path

import numpy as np

from siglip_jax.weights.staging import staged

# None is empty or starts or ends with a space: systems treat those in ways of their own.
TEXTS: tuple[str, ...] = (
    "cat",
    "a photo of 2 cats",
    "A Photo of a Dog.",
    "Zürich É МОСКВА ÎLE",  # noqa: RUF001 - Cyrillic is the point
    "snake_case_label, CamelCaseLabel",
    "two  spaces and   three",
    "it's a well-lit close-up: (red) fire-truck!",
    "ein Straßenschild “ACHTUNG” — 3,50 €",
    "Tom &amp; Jerry < 2 > 1",
    "東京の夜、猫が二匹",
    "UPPER CASE SIGN: STOP?",
    # More than 64 tokens in every vocabulary, with a last word that a cut removes.
    "On a rainy evening in late November the old harbour, with its wooden boats, rusty cranes "
    "and two lonely street lamps, lies quiet; a woman in a yellow coat walks her small brown "
    "dog along the water, past crates of fish, coils of rope, a broken bicycle, three sleeping "
    "cats and a blue door behind which somebody plays the accordion, slowly, as if the whole "
    "town had nothing else to do until the morning ferry comes back from the islands. Finis",
)

_README = """\
Bundled inputs of siglip-jax.

Embed the images in the order of their names and the lines of texts.txt (UTF-8, taken
exactly as they are) with your pipeline, one image and one text per call, so that padding
to the longest text of a batch shows. Save the embeddings in that order:

    numpy.savez("theirs.npz", zimg=image_rows, ztxt=text_rows)

(either may be left out), and ask what is different about them:

    siglip-jax doctor --model MODEL --embeddings theirs.npz
"""


def pictures() -> dict[str, np.ndarray]:
    """Name to (height, width, 3) uint8 pixels, in their order.

    >>> [(name, picture.shape[:2]) for name, picture in pictures().items()][:2]
    [('rings', (480, 640)), ('checks', (512, 512))]
    """
    return {
        "rings": _rings(480, 640),
        "checks": _checks(512, 512),
        "noise": _noise(300, 400),
        "gradient": _gradient(200, 900),
        "strokes": _strokes(700, 260),
        "edges": _edges(333, 257),
        "small": _noise(40, 56)[::2, ::2].repeat(2, 0).repeat(2, 1),
        "disc": _disc(600, 450),
    }


def inputs_digest() -> str:
    """SHA-256 of all images and texts, for a test and for reports."""
    hashed = hashlib.sha256()
    for name, picture in pictures().items():
        hashed.update(f"{name} {picture.shape} {picture.dtype}\n".encode())
        hashed.update(picture.tobytes())
    hashed.update("\n".join(TEXTS).encode())
    return hashed.hexdigest()


def write(folder: Path) -> None:
    """Writes the images as PNG, `texts.txt` and a README into a new folder.

    Raises:
      ValueError: if `folder` exists or its parent does not.
    """
    from PIL import Image

    if folder.exists():
        raise ValueError(f"{folder} exists already; choose another name or remove it")
    with staged(folder) as partial:
        partial.mkdir()
        for i, (name, picture) in enumerate(pictures().items(), 1):
            Image.fromarray(picture).save(partial / f"{i}_{name}.png")
        # Bytes, because text mode would write another line end on Windows.
        (partial / "texts.txt").write_bytes("".join(f"{text}\n" for text in TEXTS).encode())
        (partial / "README.txt").write_bytes(_README.encode())


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.indices((height, width), np.int64, sparse=True)
    return y, x


def _triangle(phase: np.ndarray) -> np.ndarray:
    """A wave of period 512 from 0 to 255 and back."""
    phase = phase & 511
    return np.minimum(phase, 511 - phase)


def _stack(*channels: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*channels), -1).astype(np.uint8)


def _hash(value: np.ndarray) -> np.ndarray:
    """Integers from 0 to 255 without a pattern."""
    value = (value * 2654435761 + 12345) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 2246822519) & 0xFFFFFFFF
    return ((value ^ (value >> 13)) >> 8) & 255


def _rings(height: int, width: int) -> np.ndarray:
    """A zone plate: rings that grow finer outwards, beyond what any resize can keep."""
    y, x = _grid(height, width)
    phase = ((y - height // 3) ** 2 + (x - width // 2) ** 2) // 2
    return _stack(_triangle(phase), _triangle(phase + 170), _triangle(phase * 2))


def _checks(height: int, width: int) -> np.ndarray:
    """A chessboard whose squares grow from 1 pixel on the left to 8 on the right."""
    y, x = _grid(height, width)
    side = 1 + 8 * x // width
    odd = (y // side + x // side) & 1
    return _stack(255 * odd, 40 + 180 * odd, 230 - 200 * odd)


def _noise(height: int, width: int) -> np.ndarray:
    y, x = _grid(height, width)
    return _stack(*(_hash(y * 7919 + x * 104729 + c * 1299709) for c in range(3)))


def _gradient(height: int, width: int) -> np.ndarray:
    y, x = _grid(height, width)
    return _stack(255 * x // (width - 1), 255 * y // (height - 1), 255 - 255 * x // (width - 1))


def _strokes(height: int, width: int) -> np.ndarray:
    """Something like lines of print: 5 x 3 glyphs of 2-pixel strokes, black on paper."""
    y, x = _grid(height, width)
    row, column = y // 14, x // 8
    inside = (y % 14 < 10) & (x % 8 < 6)
    ink = _hash(row * 131 + column * 17 + (y % 14 // 2) * 3 + x % 8 // 2) > 120
    word = _hash(row * 977 + column) > 50  # The rest are the spaces between words.
    black = inside & ink & word
    return _stack(*(np.where(black, 20, paper) for paper in (250, 246, 230)))


def _edges(height: int, width: int) -> np.ndarray:
    """Slanted edges, one line a pixel wide, and flat areas of saturated colour."""
    y, x = _grid(height, width)
    red = np.where(3 * y + 2 * x > 700, 255, 0)
    green = np.where((y > 100) & (y < 200) & (x > 60), 200, 30)
    blue = np.where(((y - x) % 61 == 0) | (x * 5 < y), 255, 0)
    return _stack(red, green, blue)


def _disc(height: int, width: int) -> np.ndarray:
    """A striped disc at the upper edge, which a centre crop of a tall image cuts."""
    y, x = _grid(height, width)
    inside = (y - 110) ** 2 + (x - width // 2) ** 2 < 100**2
    stripes = np.where((x + y) % 6 < 3, 240, 60)
    sky = 90 + 120 * y // height
    return _stack(
        np.where(inside, stripes, sky), np.where(inside, 200, sky), np.where(inside, 20, 220)
    )
