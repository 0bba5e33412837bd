"""Locked-image tuning: the image tower does not move, and sees each picture once."""

import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import shapes

from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import load
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.programs.towers import Program
from siglip_jax.scoring.rows import Prepared
from siglip_jax.training import embeddings, recipe_from_dict
from siglip_jax.training.embeddings import cached_image_embeddings

pytestmark = pytest.mark.usefixtures("compiled_once")
LOCKED = [{"pattern": "img/.*", "frozen": True}]


@pytest.fixture
def counted(monkeypatch):
    """How often all pictures were embedded to be kept."""
    calls, embed = [], embeddings._embed

    def counting(*args, **options):
        if args[4].fill.__name__ == "filled":  # not those of an evaluation
            calls.append(1)
        return embed(*args, **options)

    monkeypatch.setattr(embeddings, "_embed", counting)
    return calls


def test_a_new_text_tower_learns_what_a_locked_one_sees(tmp_path, counted):
    known = shapes.trained_model()
    source = str(known.result.model)
    table = known.table | {
        "seed": 7,
        "init": {"image": source},
        "parameters": LOCKED,
        "data": known.table["data"] | {"cache_images": True},
    }
    mesh = make_mesh(jax.devices()[:1])

    def stop(progress):
        if progress.what == "training" and progress.done == 100:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not shapes.trained(tmp_path, table, mesh=mesh, report=stop).finished
    (cache,) = (tmp_path / "run").glob("image_embeddings-*.npy")
    assert np.load(cache).shape == (48, 32) and len(counted) == 1

    result = shapes.trained(tmp_path, table, mesh=mesh)
    assert result.finished and len(counted) == 1, "embedded again"
    before, after = load(source), load(result.model)
    assert shapes.bits(after.params["img"]) == shapes.bits(before.params["img"])
    assert shapes.bits(after.params["txt"]) != shapes.bits(before.params["txt"])
    # Most of what both towers reached together.
    assert known.result.metrics["img2txt_recall@1"] >= 0.95
    assert result.metrics["img2txt_recall@1"] >= 0.9
    assert result.metrics["txt2img_recall@1"] >= 0.9


def test_only_a_frozen_tower_can_be_cached(tmp_path, data):
    table = shapes.recipe(data)
    table |= {"data": table["data"] | {"cache_images": True}}
    for rules in ([], [{"pattern": "img/.*/kernel", "frozen": True}]):
        with pytest.raises(ValueError, match="cache_images needs a frozen image tower, but img/"):
            shapes.trained(tmp_path, table | {"parameters": rules}, mesh=make_mesh())


class Images:
    def __init__(self, name="a"):
        self.name = name

    def identity(self):
        return self.name

    def __len__(self):
        return 10

    def key(self, index):
        return str(index)

    def __getitem__(self, index):
        if self.name == "damaged" and index in (3, 7):
            raise ValueError(f"{index}.png: cannot be read")
        return str(index), b"", ()


@pytest.fixture
def cached(tmp_path, monkeypatch, data):
    """`cached_image_embeddings` with an embedding that counts, of which some fail."""
    calls, config = [], recipe_from_dict(shapes.recipe(data)).config
    run = SimpleNamespace(calls=calls, stop=None, width=config.embed_dim)

    def embed(program, params, items, profile, rows, seen, *, batch, processes):
        assert (batch, processes) == (4, 3)
        calls.append([])
        for item in items:
            if item.key == run.stop:
                raise KeyboardInterrupt
            calls[-1].append(item.key)
            seen(Prepared(item.key, error=item.error))
            rows.fill((np.full((1, run.width), params["img"]["kernel"][0]),))

    monkeypatch.setattr(embeddings, "_embed", embed)
    program = Program(SiglipModel(config), make_mesh(jax.devices()[:1]))

    def call(tower=1.0, images="a", max_error_share=0.5):
        return cached_image_embeddings(
            tmp_path,
            program,
            {"img": {"kernel": np.array([tower], np.float32)}},
            Images(images),
            custom_profile(config, pad=1),
            batch=4,
            max_error_share=max_error_share,
            processes=3,
        )

    run.call = call
    return run


def test_embeddings_are_of_one_tower_and_one_dataset(cached):
    zimg, unread = cached.call()
    assert cached.call()[0].tolist() == zimg.tolist() and (len(cached.calls), unread) == (1, [])
    assert cached.call(tower=2.0)[0][0, 0] == 2 and len(cached.calls) == 2
    cached.call(images="b")
    assert len(cached.calls) == 3
    # All three are there now.
    assert cached.call()[0][0, 0] == 1 and cached.call(tower=2.0)[0][0, 0] == 2
    assert len(cached.calls) == 3


def test_what_was_embedded_before_an_interruption_is_not_embedded_again(cached, tmp_path):
    cached.stop = "6"
    with pytest.raises(KeyboardInterrupt):
        cached.call(images="damaged")
    (partial,) = tmp_path.glob(".image_embeddings-*.partial")
    with partial.open("ab") as file:
        file.write(b"half a row")
    assert not list(tmp_path.glob("image_embeddings-*.npy"))
    cached.stop = None
    zimg, unread = cached.call(images="damaged")
    assert cached.calls == [list("012345"), list("6789")]
    assert zimg.shape == (10, cached.width) and unread == [3, 7]
    assert (np.delete(zimg, unread, axis=0) == 1).all() and not partial.exists()


def test_images_that_cannot_be_embedded_are_left_out_or_too_many(cached):
    for _ in range(2):
        zimg, unread = cached.call(images="damaged", max_error_share=0.2)
        assert unread == [3, 7] and np.isnan(zimg[unread]).all()
        assert np.isfinite(np.delete(zimg, unread, axis=0)).all()
    assert len(cached.calls) == 1
    for _ in range(2):  # each is tried again
        with pytest.raises(ValueError, match=r"2 of 10 images \(20.0%\) cannot be read.* 3.png: "):
            cached.call(tower=3.0, images="damaged", max_error_share=0.1)
    assert [len(keys) for keys in cached.calls] == [10, 10, 10]
