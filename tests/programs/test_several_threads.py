"""On a GPU no CUDA graph is recorded by a program that runs beside others."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from saved_model import saved

import siglip_jax
from siglip_jax.jobs import top_k
from siglip_jax.programs import make_mesh, towers
from siglip_jax.programs.several_threads import for_several_threads
from siglip_jax.search import Searcher


def mesh_of(platform):
    return SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))


def test_options_are_ones_that_the_compiler_knows():
    options = for_several_threads(mesh_of("gpu"))
    assert float(jax.jit(lambda x: 2 * x, **options)(1.0)) == 2
    assert for_several_threads(mesh_of("tpu")) == for_several_threads(mesh_of("cpu")) == {}


UNKNOWN = {"compiler_options": {"xla_of_no_compiler": 1}}


@pytest.fixture
def unknown(monkeypatch):
    """Whatever is compiled with these options says so."""
    for module in (towers, top_k):
        monkeypatch.setattr(module, "for_several_threads", lambda mesh: UNKNOWN)


def test_programs_of_a_service_have_them(unknown, tmp_path):
    model = siglip_jax.load(saved(tmp_path / "m"), mesh=make_mesh())
    for kept in (False, True):
        scorer = model.scorer(batch_size=8, text_batch_size=8, kept=kept)
        z = np.ones((8, scorer.width()), np.float32)
        runs = {
            "texts": lambda scorer=scorer: scorer.embed_texts(["a"]),
            "images": lambda scorer=scorer: scorer.embed_images([np.zeros((9, 9, 3), np.uint8)]),
            "logits": lambda scorer=scorer, z=z: scorer.logits(z, z),
        }
        for run in runs.values():
            if kept:
                with pytest.raises(Exception, match="xla_of_no_compiler"):
                    run()
            else:
                run()


def test_so_has_its_search(unknown):
    row = np.ones((1, 2), np.float32)
    embeddings = type("OneRow", (), {"width": 2, "dtype": row.dtype, "__len__": lambda self: 1})()
    Searcher(embeddings)._ranked(1)(row, [row])
    with pytest.raises(Exception, match="xla_of_no_compiler"):
        Searcher(embeddings, several_threads=True)._ranked(1)(row, [row])
