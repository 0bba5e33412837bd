"""Hugging Face `datasets.map`: in this process, and in two of its own."""

import subprocess
import sys

import numpy as np
import pytest
from emoji_pictures import PICTURES

datasets = pytest.importorskip("datasets", reason="needs datasets: pip install datasets")

from siglip_jax.batch import ImageEmbedder, LabelScorer  # noqa: E402

OPTIONS = {"batch_size": 4, "keep": []}


@pytest.fixture(scope="module")
def photos():
    files = [str(path) for path in PICTURES]
    photos = datasets.Dataset.from_dict({"image": files, "n": list(range(len(files)))})
    return photos.cast_column("image", datasets.Image(decode=False))


@pytest.fixture(scope="module")
def expected():
    return ImageEmbedder("siglip_emoji", **OPTIONS)({"image": list(PICTURES)})["embedding"]


def test_encoded_and_decoded_images(photos, expected):
    embedder = ImageEmbedder("siglip_emoji", **OPTIONS)
    made = photos.map(embedder, batched=True, batch_size=4)
    assert made.column_names == ["image", "n", "embedding", "error"]
    assert made.features["embedding"] == datasets.List(datasets.Value("float32"))
    assert made["n"][:] == photos["n"][:] and set(made["error"]) == {""}
    assert np.abs(np.array(made["embedding"]) - expected).max() < 1e-6
    decoded = photos.cast_column("image", datasets.Image()).map(embedder, batched=True)
    assert np.abs(np.array(decoded["embedding"]) - expected).max() < 1e-6


def test_the_same_settings_are_found_in_the_cache(photos):
    of = datasets.fingerprint.Hasher.hash
    first = ImageEmbedder("siglip_emoji", **OPTIONS)
    before = of(first)
    first({"image": list(PICTURES[:1])})
    assert before == of(first) == of(ImageEmbedder("siglip_emoji", **OPTIONS))
    assert before != of(ImageEmbedder("siglip_emoji", batch_size=8, keep=[]))


def test_labels_and_a_row_that_is_none(photos):
    scorer = LabelScorer("siglip_emoji", ["brown circle", "a cat"], top=1, **OPTIONS)
    made = photos.map(scorer, batched=True)
    assert all(len(labels) == 1 for labels in made["labels"])
    with pytest.raises(ValueError, match=r"that is a row, not a batch; use .*batched=True"):
        photos.map(ImageEmbedder("siglip_emoji", image_column="image"))


@pytest.mark.slow
def test_two_processes(tmp_path, expected):
    program = f"""
import datasets, numpy
from emoji_pictures import PICTURES
from siglip_jax.batch import ImageEmbedder
photos = datasets.Dataset.from_dict({{"path": [str(path) for path in PICTURES]}})
made = photos.map(ImageEmbedder("siglip_emoji", **{OPTIONS}), batched=True, num_proc=2)
numpy.save("out.npy", numpy.array(made["embedding"], numpy.float32))
"""
    paths = [path for path in sys.path if path.endswith("support")]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path += {paths}\n{program}"],
        cwd=tmp_path, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-6
