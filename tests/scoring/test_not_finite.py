"""NaN and infinity: named in weights, errors in embeddings, null in JSON."""

import jax
import numpy as np
import pytest
import tiny_checkpoint
from flax.traverse_util import unflatten_dict
from saved_model import saved

import siglip_jax
from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.rows import NOT_FINITE, Prepared, Rows
from siglip_jax.weights.load import not_finite


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_what_is_not_finite_is_counted(dtype):
    array = jax.numpy.arange(12.0).reshape(3, 4)
    array = np.array(array, dtype if dtype != "bfloat16" else jax.numpy.bfloat16)
    assert not_finite(array) == not_finite(array.T) == 0
    array[0, 1], array[2, 2], array[1, 0] = np.nan, np.inf, -np.inf
    assert not_finite(array) == not_finite(array.T) == 3
    big = np.full(4, np.finfo(np.float32).max)  # whose square is infinite, and which is not
    assert not_finite(big) == 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_tensor_of_a_file_is_named(tmp_path, dtype):
    tensors = {name: a.astype(dtype) for name, a in tiny_checkpoint.tensors().items()}
    tensors["txt/head/kernel"][0, 3] = np.nan
    tensors["txt/head/bias"][:2] = np.inf
    np.savez(tmp_path / "bad.npz", **{f"params/{name}": a for name, a in tensors.items()})
    with pytest.raises(ValueError) as caught:
        siglip_jax.load(
            tmp_path / "bad.npz",
            config=tiny_checkpoint.CONFIG,
            profile=custom_profile(tiny_checkpoint.CONFIG, pad=1),
        )
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad.npz'} holds NaN or infinity in 2 tensors: ")
    size = tensors["txt/head/kernel"].size
    assert f"txt/head/kernel (1 of {size:,} values)" in message and "txt/head/bias (2 of" in message


def test_rows_that_are_not_finite_are_in_error():
    rows = Rows()
    for key in "abcd":
        rows.add(Prepared(key, error="bad") if key == "b" else Prepared(key, example=0))
    rows.fill((np.float32([[1, 2], [np.nan, 0]]),))
    rows.fill((np.float32([[0, np.inf]]),))
    assert rows.settle() == [2, 3] and rows.settle() == []
    assert [item.error for item in rows.items] == [None, "bad", NOT_FINITE, NOT_FINITE]
    assert rows.good.tolist() == [0] and rows.embeddings(2)[0].tolist() == [[1, 2]]


@pytest.fixture
def broken(monkeypatch):
    """A model that makes NaN of dark images, whatever it says of its weights."""
    from siglip_jax.programs.towers import Program

    def spoil(program):
        images = program.images

        def run(params, batch):
            dark = (batch.reshape(len(batch), -1).max(axis=1) < 9)[:, None]
            return jax.numpy.where(dark, np.nan, images(params, batch))

        program.images = run

    made = Program.__init__

    def init(self, *args, **options):
        made(self, *args, **options)
        spoil(self)

    monkeypatch.setattr(Program, "__init__", init)


def test_a_job_writes_an_error_row(broken, tmp_path):
    """Also where the best labels are asked for, of which there is none."""
    import pyarrow.parquet
    from PIL import Image

    from siglip_jax import jobs

    (tmp_path / "images").mkdir()
    for name, value in (("a", 200), ("b", 0), ("c", 100)):
        Image.new("RGB", (32, 32), (value,) * 3).save(tmp_path / "images" / f"{name}.png")
    model = siglip_jax.load(saved(tmp_path / "model"))
    options = {"model": model, "batch_size": 2, "max_error_share": 1.0}
    source = str(tmp_path / "images")
    jobs.embed(source, tmp_path / "index", **options)
    result = jobs.score(source, tmp_path / "scores", labels=["cat", "dog"], top=1, **options)
    assert result.errors == 1 and result.reasons[0] == {"key": "b.png", "error": NOT_FINITE}
    for folder, column in (("index", "embedding"), ("scores", "labels")):
        table = pyarrow.parquet.read_table(tmp_path / folder / "data/00000.parquet")
        assert table.column("error").to_pylist() == [None, NOT_FINITE, None]
        assert [value is None for value in table.column(column).to_pylist()] == [False, True, False]


def test_a_scorer_says_which_image(broken):
    params = unflatten_dict(tiny_checkpoint.tensors(), sep="/")
    config = tiny_checkpoint.CONFIG
    scorer = Scorer(
        SiglipModel(config), params, profile=custom_profile(config, pad=1), batch_size=2
    )
    images = [np.full((32, 32, 3), value, np.uint8) for value in (200, 0, 100)]
    with pytest.raises(ValueError, match=f"image 1: {NOT_FINITE}"):
        scorer.embed_images(images)
    bad = []
    z = scorer.embed_images(images, on_error=lambda index, error: bad.append((index, str(error))))
    assert bad == [(1, f"image 1: {NOT_FINITE}")]
    assert np.isnan(z).all(axis=1).tolist() == [False, True, False]


def test_rows_that_were_tried_again_stay_with_their_items():
    rows = Rows()
    for key in "abc":
        rows.add(
            Prepared(key, error="slow", passing=True) if key == "a" else Prepared(key, example=0)
        )
    rows.fill((np.float32([[1, 0], [np.nan, 0]]),))
    assert rows.again() == {"a"}
    rows.add(Prepared("a", example=0))
    rows.fill((np.float32([[3, 0]]),))
    assert rows.settle() == [2]
    assert rows.good.tolist() == [0, 1]
    assert rows.embeddings(2)[0].tolist() == [[3, 0], [1, 0]]
