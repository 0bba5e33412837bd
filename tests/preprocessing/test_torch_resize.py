"""torchvision's resizes of bytes; the numbers are those of torchvision 0.29 itself."""

import numpy as np
import pytest

from siglip_jax.preprocessing.torch_resize import integer_weights, torch_resize

IMAGE = (np.arange(7 * 5 * 3).reshape(7, 5, 3) * 89 % 256).astype(np.uint8)
SMALLER = {
    "bilinear": [58, 147, 176, 80, 169, 124, 161, 118, 112, 164, 106, 124, 93, 127, 153, 97, 149,
                 146],
    "bicubic": [49, 147, 181, 78, 173, 121, 172, 119, 105, 172, 104, 125, 91, 123, 157, 96, 149,
                146],
    "lanczos": [44, 151, 180, 77, 177, 116, 178, 119, 106, 174, 101, 126, 93, 119, 159, 95, 145,
                148],
}  # fmt: skip
WIDER = {
    "bilinear": [150, 179, 102, 154, 147, 106, 160, 95, 112, 166, 89, 118, 172, 95, 124],
    "bicubic": [160, 179, 90, 164, 153, 96, 171, 91, 108, 177, 83, 115, 183, 94, 121],
    "lanczos": [164, 179, 86, 167, 153, 93, 174, 93, 109, 180, 83, 120, 187, 95, 124],
}


@pytest.mark.parametrize("method", SMALLER)
def test_pixels_of_torchvision(method):
    assert torch_resize(IMAGE, 3, 2, method).ravel().tolist() == SMALLER[method]
    assert torch_resize(IMAGE, 3, 9, method)[1].ravel().tolist()[:15] == WIDER[method]


@pytest.mark.parametrize("method", SMALLER)
def test_one_colour_stays_that_colour(method):
    for grey in (0, 1, 254, 255):
        image = np.full((37, 91, 3), grey, np.uint8)
        assert set(np.unique(torch_resize(image, 64, 29, method))) == {grey}


def test_a_size_that_stays_changes_nothing():
    np.testing.assert_array_equal(torch_resize(IMAGE, 7, 5, "bicubic"), IMAGE)


def test_no_caller_can_change_the_weights_of_the_next():
    for array in integer_weights(30, 7, "bicubic")[:2]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size, out", [(1999, 3), (640, 32), (97, 224), (2, 700)])
def test_rows_equal_sums_of_whole_numbers(method, size, out):
    """Of 64 bits, in which nothing can be lost; 600 bytes a row are more than a chunk."""
    image = np.random.default_rng(size).integers(0, 256, (size, 200, 3), np.uint8)
    image[: size // 2] = 255 * (image[: size // 2] > 127)  # as far apart as bytes can be
    first, weights, bits = integer_weights(size, out, method)
    expected = np.empty((out, 200, 3), np.uint8)
    for row, (begin, values) in enumerate(zip(first, weights.astype(np.int64), strict=True)):
        span = image[begin : begin + len(values)].astype(np.int64)
        total = np.tensordot(values[: len(span)], span, 1) + (1 << (bits - 1))
        expected[row] = np.clip(total >> bits, 0, 255)
    np.testing.assert_array_equal(torch_resize(image, out, 200, method), expected)
