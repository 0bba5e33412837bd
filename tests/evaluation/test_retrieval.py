"""Recall: big_vision's names and definitions."""

import numpy as np
import pytest

from siglip_jax.evaluation import recall
from siglip_jax.programs import make_mesh


def from_similarities(similarity, owner, **options):
    """Recall of embeddings whose products are `similarity`."""
    return recall(similarity, np.eye(len(owner)), owner, **options)


# Two texts each of four images; in 0.1 steps so that no two that matter are equal.
OWNER = [0, 0, 1, 1, 2, 2, 3, 3]
SIMILARITY = np.array(
    [
        [9, 1, 2, 3, 4, 5, 6, 7],  # own best first
        [9, 8, 7, 0, 1, 2, 3, 4],  # own best third
        [9, 8, 7, 6, 2, 5, 4, 3],  # own best fifth
        [9, 8, 7, 6, 5, 4, 3, 2],  # own best seventh
    ]
)


def test_by_hand():
    got = from_similarities(SIMILARITY + np.arange(4)[:, None] / 100, OWNER, ks=(1, 3, 5, 7))
    assert list(got) == [f"{d}_recall@{k}" for d in ("img2txt", "txt2img") for k in (1, 3, 5, 7)]
    assert [got[f"img2txt_recall@{k}"] for k in (1, 3, 5, 7)] == [0.25, 0.5, 0.75, 1]
    # Of the eight texts, numbers 1 to 8, the image's place is 4, 4, 3, 4, 3, 1, 3, 4.
    assert [got[f"txt2img_recall@{k}"] for k in (1, 3, 5, 7)] == [1 / 8, 4 / 8, 1, 1]
    assert all(type(value) is float for value in got.values())


def test_names_are_big_visions():
    assert list(from_similarities(SIMILARITY, OWNER)) == [
        *("img2txt_recall@1", "img2txt_recall@5", "img2txt_recall@10"),
        *("txt2img_recall@1", "txt2img_recall@5", "txt2img_recall@10"),
    ]


def test_images_weigh_alike_and_texts_weigh_alike():
    """Image 0 has one caption, image 1 three; the captions of image 1 are all wrong."""
    zimg, ztxt = np.eye(2), np.eye(2)[[0, 0, 0, 0]]
    got = recall(zimg, ztxt, [0, 1, 1, 1], ks=[1])
    assert got == {"img2txt_recall@1": 0.5, "txt2img_recall@1": 0.25}


def test_more_places_than_candidates():
    got = recall(np.eye(3), np.eye(3)[[1, 2]], [0, 2], ks=[10])
    # Image 1 has no text: a miss at any k.
    assert got == {"img2txt_recall@10": 2 / 3, "txt2img_recall@10": 1}


def test_devices_and_chunks_change_nothing():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((700, 16), np.float32)
    owner = rng.integers(0, 300, 400)
    first, *others = (
        recall(z[:300], z[300:], owner, mesh=mesh, chunk=chunk)
        for mesh in (None, make_mesh(), make_mesh(model=4))
        for chunk in (100, 1024)
    )
    assert all(other == first for other in others) and 0 < first["img2txt_recall@10"] < 0.5


@pytest.mark.parametrize("ks", [[], [1, 0]])
def test_bad_ks(ks):
    with pytest.raises(ValueError, match=r"ks must be whole numbers of at least 1, got \["):
        from_similarities(SIMILARITY, OWNER, ks=ks)
