"""The right one of several captions."""

import numpy as np
import pytest

from siglip_jax.evaluation import caption_choice


def of_similarities(*groups):
    """Groups of which the similarities (images, captions) are given."""
    images = [g for g, own in enumerate(groups) for _ in own]
    texts = [g for g, own in enumerate(groups) for _ in own[0]]
    rows = np.zeros((len(images), len(texts)))
    for g, own in enumerate(groups):
        rows[np.ix_(np.equal(images, g), np.equal(texts, g))] = own
    return caption_choice(rows, np.eye(len(texts)), images, texts)


def test_one_image_a_group():
    got = of_similarities([[3, 2, 1]], [[1, 2]], [[2, 1]], [[0, -1, 5]])
    assert got == {"text_accuracy": 0.5, "tied_groups": 0.0}


def test_two_images_a_group():
    """WinoGround: all right; captions only; images only; nothing."""
    got = of_similarities(
        [[2, 1], [1, 2]],
        [[5, 4], [1, 3]],  # both captions go to the right image... and the first image is greedy
        [[2, 3], [1, 4]],
        [[1, 2], [2, 1]],
    )
    # Rows: image 0 takes caption 0 and image 1 caption 1 in groups 0 and 1.
    assert got["text_accuracy"] == 0.5
    # Columns: in groups 0 and 2 each caption takes its image; in group 1 caption 1 takes image 0.
    assert got["image_accuracy"] == 0.5
    assert got["group_accuracy"] == 0.25 and got["tied_groups"] == 0


def test_more_captions_than_images():
    assert of_similarities([[9, 0, 1], [0, 9, 1]])["group_accuracy"] == 1
    assert of_similarities([[9, 0, 10], [0, 9, 1]])["text_accuracy"] == 0
    # A caption without an image of its own may be near to any.
    assert of_similarities([[9, 0, 8], [0, 9, 8]])["image_accuracy"] == 1


def test_ties_are_told():
    got = of_similarities([[1, 1]], [[2, 1]])
    assert got == {"text_accuracy": 1.0, "tied_groups": 0.5}
    assert of_similarities([[0, 1], [0, 1]])["tied_groups"] == 1


def test_the_order_of_groups_does_not_matter():
    rng = np.random.default_rng(0)
    zimg, ztxt = (rng.standard_normal((n, 4), np.float32) for n in (40, 100))
    image_of, text_of = np.repeat(np.arange(20), 2), np.repeat(np.arange(20), 5)
    # The first two captions of a group are like its images, which lie close to each other.
    zimg[1::2] += zimg[::2]
    ztxt.reshape(20, 5, 4)[:, :2] = zimg.reshape(20, 2, 4) + 0.5 * ztxt.reshape(20, 5, 4)[:, :2]
    first = caption_choice(zimg, ztxt, image_of, text_of)
    images = np.argsort(rng.permutation(20)[image_of], kind="stable")
    texts = np.argsort(rng.permutation(20)[text_of], kind="stable")
    assert caption_choice(zimg[images], ztxt[texts], image_of[images], text_of[texts]) == first
    assert 0 < first["group_accuracy"] < first["text_accuracy"] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zimg": np.eye(3)}, r"expected embeddings.*got \(3, 3\) and \(4, 2\)"),
        ({"zimg": np.full((2, 2), np.inf)}, "some embeddings are not finite"),
        ({"image_of_group": [0]}, "image_of_group must hold one integer for each of the 2"),
        ({"text_of_group": [0.0, 0, 1, 1]}, "text_of_group must hold one integer.*float64"),
        ({"text_of_group": [0, 0, 2, 2]}, "2 groups lack one side; group 1 has no caption"),
        ({"text_of_group": [0, 1, 1, 1]}, "group 0 has one image and one caption"),
    ],
)
def test_bad_input(change, message):
    good = {
        "zimg": np.eye(2),
        "ztxt": np.eye(2)[[0, 1, 1, 0]],
        "image_of_group": [0, 1],
        "text_of_group": [0, 0, 1, 1],
    }
    with pytest.raises(ValueError, match=message):
        caption_choice(**(good | change))
