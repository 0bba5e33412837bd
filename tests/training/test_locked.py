"""Locked-image tuning: the image tower does not move, and sees each picture once."""

import os
import signal

import jax
import numpy as np
import pytest
import shapes

from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import custom_profile
from siglip_jax.pretrained import load
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.programs.towers import Program
from siglip_jax.training import embeddings, recipe_from_dict
from siglip_jax.training.embeddings import cached_image_embeddings

compiled_once, data = shapes.compiled_once, shapes.data
pytestmark = pytest.mark.usefixtures("compiled_once")
LOCKED = [{"pattern": "img/.*", "frozen": True}]


@pytest.fixture
def counted(monkeypatch):
    """How often all pictures were embedded to be kept."""
    calls, embed = [], embeddings.embed_images

    def counting(*args, **options):
        calls.append(1)
        return embed(*args, **options)

    monkeypatch.setattr(embeddings, "embed_images", counting)
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


class Pictures:
    def __init__(self, name="a"):
        self.name = name

    def identity(self):
        return self.name

    def __len__(self):
        return 10


@pytest.fixture
def cached(tmp_path, monkeypatch, data):
    """`cached_image_embeddings` with an embedding that counts, of which some fail."""
    calls = []

    def embed(program, params, pairs, profile, *, on_error, **_):
        calls.append(pairs.name)
        for place in (3, 7):
            if pairs.name == "damaged":
                on_error(place, ValueError(f"{place}.png: cannot be decoded"))
        return np.full((len(pairs), 4), params["img"]["kernel"][0])

    monkeypatch.setattr(embeddings, "embed_images", embed)
    config = recipe_from_dict(shapes.recipe(data)).config
    program = Program(SiglipModel(config), make_mesh(jax.devices()[:1]))

    def run(tower=1.0, pictures="a", max_unreadable=0.5):
        return cached_image_embeddings(
            tmp_path,
            program,
            {"img": {"kernel": np.array([tower], np.float32)}},
            Pictures(pictures),
            custom_profile(config, pad=1),
            batch=4,
            max_unreadable=max_unreadable,
        )

    return run, calls


def test_embeddings_are_of_one_tower_and_one_dataset(cached):
    run, calls = cached
    zimg, unread = run()
    assert run()[0].tolist() == zimg.tolist() and (calls, unread) == (["a"], [])
    assert run(tower=2.0)[0][0, 0] == 2 and calls == ["a", "a"]
    run(pictures="b")
    assert calls == ["a", "a", "b"]
    # All three are there now.
    assert run()[0][0, 0] == 1 and run(tower=2.0)[0][0, 0] == 2 and len(calls) == 3


def test_pictures_that_cannot_be_embedded_are_left_out_or_too_many(cached):
    run, calls = cached
    for _ in range(2):
        zimg, unread = run(pictures="damaged", max_unreadable=0.2)
        assert unread == [3, 7] and np.isnan(zimg[unread]).all()
        assert np.isfinite(np.delete(zimg, unread, axis=0)).all()
    assert len(calls) == 1
    with pytest.raises(ValueError, match=r"2 of 10 pictures \(20.0%\) cannot be read.* 3.png: "):
        run(tower=3.0, pictures="damaged", max_unreadable=0.1)
