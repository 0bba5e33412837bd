"""Images that lie on devices, and embeddings that stay there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from towers import case

from siglip_jax.models import SiglipModel
from siglip_jax.preprocessing import Patches
from siglip_jax.programs import FSDP, REPLICATED, make_mesh
from siglip_jax.scoring import Scorer, ready


@pytest.fixture(scope="module", params=[1, 8], ids=["one", "eight"])
def scorer(request):
    tiny = case("loop")
    return Scorer(
        SiglipModel(tiny.config, tiny.execution),
        tiny.params,
        mesh=make_mesh(jax.devices()[: request.param]),
        rules=FSDP if request.param > 1 else REPLICATED,
        batch_size=8,
        text_batch_size=8,
    )


@pytest.fixture
def on_host(monkeypatch):
    """The sizes of what comes to the host. On a CPU `jax.transfer_guard` does not see that."""
    seen = []
    get = jax.device_get
    monkeypatch.setattr(
        jax,
        "device_get",
        lambda x: [seen.append(leaf.size) for leaf in jax.tree.leaves(x)] and get(x),
    )
    real = np.asarray

    def asarray(x, *rest, **options):
        if isinstance(x, jax.Array):
            seen.append(x.size)
        return real(x, *rest, **options)

    monkeypatch.setattr(np, "asarray", asarray)
    return seen


def images(n, dtype):
    grey = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    return grey if dtype == np.uint8 else np.float32(grey) / 127.5 - 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("n", [8, 11])
def test_images_and_embeddings_stay(scorer, on_host, dtype, n):
    host = images(n, dtype)
    there = jax.device_put(host, scorer.mesh.devices.flat[0])
    expected = scorer.embed_images(host)
    scorer.embed_images(there, as_jax=True)  # compiled, with the constants of its programs
    on_host.clear()
    with jax.transfer_guard("disallow"):
        z = scorer.embed_images(there, as_jax=True)
    assert max(on_host, default=0) <= 1
    assert isinstance(z, jax.Array) and z.shape == expected.shape
    assert z.sharding.device_set == set(scorer.mesh.devices.flat)
    np.testing.assert_array_equal(z, expected)
    # What is asked for on the host comes there, and only that.
    np.testing.assert_array_equal(scorer.embed_images(there), expected)


def test_texts_stay(scorer, on_host):
    tiny = case("loop")
    host = np.asarray(tiny.texts)
    there = jnp.asarray(host)
    expected = scorer.embed_texts(host)
    scorer.embed_texts(there, as_jax=True)
    on_host.clear()
    with jax.transfer_guard("disallow"):
        z = scorer.embed_texts(there, as_jax=True)
    assert max(on_host) <= 1
    np.testing.assert_array_equal(z, expected)
    with pytest.raises(ValueError, match=r"token ids must lie in .* got -1\.\."):
        scorer.embed_texts(there.at[0, 0].set(-1))


def test_patches_stay(on_host):
    tiny = case("naflex")
    scorer = Scorer(SiglipModel(tiny.config, tiny.execution), tiny.params, batch_size=2)
    there = Patches(*map(jnp.asarray, tiny.images))
    expected = scorer.embed_images(Patches(*map(np.asarray, tiny.images)))
    scorer.embed_images(there, as_jax=True)
    on_host.clear()
    z = scorer.embed_images(there, as_jax=True)
    assert max(on_host) <= there.type.size  # which patches are valid, and where they are
    np.testing.assert_array_equal(z, expected)


def test_an_array_that_is_split_over_the_devices():
    tiny = case("loop")
    mesh = make_mesh()
    scorer = Scorer(SiglipModel(tiny.config, tiny.execution), tiny.params, mesh=mesh, batch_size=16)
    host = images(16, np.uint8)
    rows = jax.NamedSharding(mesh, jax.P(("data", "model")))
    z = scorer.embed_images(jax.device_put(host, rows), as_jax=True)
    np.testing.assert_array_equal(z, scorer.embed_images(host))


def test_items_that_cannot_be_read_are_nan_there_too(tmp_path):
    from siglip_jax import load

    scorer = load("siglip_emoji").scorer(tokenizer=False, batch_size=4)
    (tmp_path / "bad.png").write_text("none")
    good = np.zeros((32, 32, 3), np.uint8)
    given = [good, str(tmp_path / "bad.png"), good + 9]
    bad = []
    z = scorer.embed_images(given, as_jax=True, on_error=lambda index, error: bad.append(index))
    assert bad == [1] and isinstance(z, jax.Array)
    assert np.isnan(z).all(axis=1).tolist() == [False, True, False]
    np.testing.assert_array_equal(z[::2], scorer.embed_images([good, good + 9]))
    assert scorer.embed_images([], as_jax=True).shape == (0, 192)


def test_logits_of_embeddings_that_are_there(scorer):
    rng = np.random.default_rng(0)
    width = scorer.model.config.embed_dim
    zimg, ztxt = (rng.normal(size=(n, width)).astype(np.float32) for n in (11, 3))
    expected = scorer.logits(zimg, ztxt)
    np.testing.assert_array_equal(scorer.logits(jnp.asarray(zimg), jnp.asarray(ztxt)), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: (x + 1) / 2,
        lambda x: (x + 1) * 127.5,
        lambda x: x.astype(np.int32),
        lambda x: x * np.nan,
        lambda x: x.transpose(0, 3, 1, 2),
    ],
    ids=["0..1", "0..255", "integers", "NaN", "channels first"],
)
def test_what_is_refused_on_the_host_is_refused_there(scorer, wrong):
    host = wrong(images(4, np.float32))
    with pytest.raises(ValueError) as here:
        scorer.embed_images(host)
    with pytest.raises(ValueError) as there:
        scorer.embed_images(jnp.asarray(host))
    assert str(here.value) == str(there.value)
    assert ready.check_ready(jnp.asarray(images(4, np.float32)), (-1.0, 1.0), 32) is None
