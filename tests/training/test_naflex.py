"""A NaFlex model through the same loop: pictures of any shape, padded sequences, the same files."""

import jax
import numpy as np
import pytest
import shapes

import siglip_jax
from siglip_jax.programs.sharding import make_mesh
from siglip_jax.training import recipe_from_dict

pytestmark = pytest.mark.usefixtures("compiled_once")


def table(folder):
    whole = shapes.recipe(folder)
    image = shapes.SIZE | {"patch": 8, "posemb_grid": 3}
    return whole | {
        "model": whole["model"] | {"image": image},
        "evaluate": {"data": whole["data"]["train"]},
    }


def test_it_learns_and_its_model_takes_pictures_of_any_shape(tmp_path):
    result = shapes.trained(tmp_path, table(tmp_path), mesh=make_mesh(jax.devices()[:2]))
    assert result.finished
    assert result.metrics["img2txt_recall@1"] >= 0.9
    model = siglip_jax.load(result.model)
    assert model.config.naflex
    assert shapes.bits(model.params) == shapes.bits(result.params)
    names = shapes.names()
    pictures = [shapes.draw(*name.split()) for name in names]
    # A third wider, on white as in training; the patches are others, the colour remains.
    wide = [p.resize((32, 24)) for p in pictures]
    scorer = model.scorer()
    ztxt = scorer.embed_texts(names)
    for given, least in ((pictures, 0.9), (wide, 0.3)):
        best = np.argmax(scorer.logits(scorer.embed_images(given), ztxt), axis=1)
        assert np.mean(best == np.arange(len(names))) >= least


def test_augmentation_is_refused(tmp_path):
    whole = table(tmp_path) | {"augmentation": {"flip": 0.5}}
    with pytest.raises(ValueError, match="NaFlex profile keeps aspect ratios"):
        shapes.trained(tmp_path, whole)
    assert recipe_from_dict(table(tmp_path)).config.naflex
