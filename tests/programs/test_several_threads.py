"""On a GPU no CUDA graph is recorded by a program that runs beside others."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from job_inputs import Told, picture
from saved_model import saved

import siglip_jax
from siglip_jax import jobs
from siglip_jax.batch.worker_model import WorkerModel, _scorer
from siglip_jax.data.item import Item
from siglip_jax.jobs import top_k
from siglip_jax.programs import make_mesh, towers
from siglip_jax.programs.several_threads import for_several_threads
from siglip_jax.search import Searcher
from siglip_jax.serve.service import Service


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
    _scorer.cache_clear()
    yield
    _scorer.cache_clear()


@pytest.fixture
def model(tmp_path):
    return siglip_jax.load(saved(tmp_path / "m"), mesh=make_mesh())


def test_whoever_says_so_has_them(unknown, model):
    image = np.zeros((9, 9, 3), np.uint8)
    for several in (False, True):
        scorer = model.scorer(batch_size=8, text_batch_size=8, several_threads=several)
        z = np.ones((8, scorer.width()), np.float32)
        runs = (
            lambda s=scorer: s.embed_texts(["a"]),
            lambda s=scorer: s.embed_images([image]),
            lambda s=scorer: s.features([image], "encoded"),
            lambda s=scorer, z=z: s.logits(z, z),
        )
        for run in runs:
            if several:
                with pytest.raises(Exception, match="xla_of_no_compiler"):
                    run()
            else:
                run()


@pytest.mark.parametrize("options", [{"top": 1}, {}])
def test_a_job_of_scores_has_them_and_one_of_embeddings_has_not(unknown, model, tmp_path, options):
    """The scores of a shard are computed by the thread that waits for its images."""
    images = Told([Item("a", picture(0))])
    assert jobs.embed(images, tmp_path / "embeddings", model=model).finished
    with pytest.raises(Exception, match="xla_of_no_compiler"):
        jobs.score(images, tmp_path / "scores", model=model, labels=["a", "b"], **options)


def test_a_service_and_an_engine_have_them(unknown, model):
    service = Service({"tiny": model}, batch_size=8, text_batch_size=8)
    with pytest.raises(Exception, match="xla_of_no_compiler"):
        service.start()
    service.close()
    assert WorkerModel("siglip_emoji").scorer(texts=False).program.options == UNKNOWN


def test_so_has_its_search(unknown):
    row = np.ones((1, 2), np.float32)
    embeddings = type("OneRow", (), {"width": 2, "dtype": row.dtype, "__len__": lambda self: 1})()
    Searcher(embeddings)._ranked(1)(row, [row])
    with pytest.raises(Exception, match="xla_of_no_compiler"):
        Searcher(embeddings, several_threads=True)._ranked(1)(row, [row])
