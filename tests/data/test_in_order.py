"""All pictures once, in order."""

import subprocess
import sys

import numpy as np
import pytest
from pair_files import PROFILE, png, write_parquet

from siglip_jax.data import images_in_order, open_pairs
from siglip_jax.preprocessing import preprocess_image


@pytest.mark.parametrize("batch", [1, 3, 4, 11, 30])
def test_every_picture_once_and_the_last_batch_filled_up(tmp_path, batch):
    pairs = open_pairs(str(write_parquet(tmp_path / "a.parquet", 11)))
    made = list(images_in_order(pairs, PROFILE, batch))
    assert [b.count for b in made] == [min(batch, 11 - s) for s in range(0, 11, batch)]
    assert all(b.image.shape == (batch, 16, 16, 3) for b in made)
    images = np.concatenate([b.image[: b.count] for b in made])
    assert np.array_equal(images, [preprocess_image(png(n), PROFILE.image) for n in range(11)])
    last = made[-1]
    assert (last.image[last.count :] == last.image[0]).all()


def test_unreadable_pictures_stop_it_or_are_told(tmp_path):
    images = [b"?" if n in (0, 5) else png(n) for n in range(7)]
    pairs = open_pairs(str(write_parquet(tmp_path / "a.parquet", 7, image=images)))
    with pytest.raises(ValueError, match=r"^a\.parquet:0: image bytes: not an image in a known"):
        list(images_in_order(pairs, PROFILE, 4))
    told = []
    made = list(images_in_order(pairs, PROFILE, 4, on_error=lambda *a: told.append(a)))
    assert [place for place, _ in told] == [0, 5]
    assert (made[0].image[0] == 0).all() and (made[1].image[1] == 0).all()
    assert np.array_equal(made[1].image[2], preprocess_image(png(6), PROFILE.image))


def test_stopping_early_leaves_nothing_behind(tmp_path):
    pairs = open_pairs(str(write_parquet(tmp_path / "a.parquet", 11)))
    batches = images_in_order(pairs, PROFILE, 2)
    next(batches)
    batches.close()
    with pytest.raises(ValueError, match=r"^batch must be an integer of at least 1, got 0$"):
        images_in_order(pairs, PROFILE, 0)


def test_importing_the_package_imports_neither_jax_nor_what_reads_data():
    code = (
        "import sys, siglip_jax.data; "
        "print([m for m in ('jax', 'grain', 'pyarrow', 'tensorflow_datasets') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
