"""The rows that every engine is given in tests, and what is made of them without an engine."""

import numpy as np
from emoji_pictures import PICTURES

from siglip_jax.batch import ImageEmbedder

MODEL, SIZE, COUNT = "siglip_emoji", 8, 96


def rows(padding=0):
    """Images by their numbers, one in seven unreadable; with so many bytes more each."""
    return [
        {
            "key": number,
            "image": PICTURES[number % 8].read_bytes() if number % 7 else b"?",
            **({"padding": bytes(padding)} if padding else {}),
        }
        for number in range(COUNT)
    ]


def check(keys, embeddings, errors):
    """Raises an AssertionError unless all rows are there once, and right."""
    order = np.argsort(keys)
    assert np.asarray(keys)[order].tolist() == list(range(COUNT))
    made = ImageEmbedder(MODEL, batch_size=SIZE)({"image": [row["image"] for row in rows()]})
    assert np.asarray(errors, object)[order].tolist() == made["error"]
    found = np.stack([np.asarray(row, np.float32) for row in embeddings])[order]
    assert found.shape == made["embedding"].shape
    assert (np.isnan(found) == np.isnan(made["embedding"])).all()
    assert np.nanmax(np.abs(found - made["embedding"])) < 1e-6
