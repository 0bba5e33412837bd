"""Ranks: against a sorted list, on one device and eight, and what they take of memory."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siglip_jax.evaluation import ranks
from siglip_jax.evaluation.rank_program import NEVER, compiled, padded_shapes
from siglip_jax.programs import make_mesh

ONE = make_mesh(jax.devices()[:1])
MESHES = {"1": ONE, "3": make_mesh(jax.devices()[:3]), "8": make_mesh(), "4x2": make_mesh(model=2)}


def sorted_places(similarity, owner):
    """The definition: sort, the lower index first of equal ones, and look."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    mine = owner[order] == np.arange(len(similarity))[:, None]
    img2txt = np.where(mine.any(1), mine.argmax(1), NEVER)
    order = np.argsort(-similarity, axis=0, kind="stable")
    return img2txt, (order == owner).argmax(0)


def check(got, expected):
    for places, right in zip(got, expected, strict=True):
        assert places.dtype == np.int32
        np.testing.assert_array_equal(places, right)


def embeddings(rng, *shape):
    z = rng.standard_normal(shape, np.float32)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(
    ("images", "texts", "chunk"),
    [(1, 1, 1024), (5, 9, 1), (300, 700, 128), (257, 1300, 200), (1300, 257, 256)],
)
def test_places_are_those_of_a_sorted_list(mesh, images, texts, chunk):
    rng = np.random.default_rng(images)
    zimg, ztxt = embeddings(rng, images, 12), embeddings(rng, texts, 12)
    owner = rng.integers(0, images, texts)
    got = ranks(zimg, ztxt, owner, mesh=MESHES[mesh], chunk=chunk)
    check(got, sorted_places(zimg.astype(np.float64) @ ztxt.T.astype(np.float64), owner))


# Whole numbers multiply without rounding, and so few of them that most places are ties.
whole = st.integers(-1, 1)


@st.composite
def with_ties(draw):
    images, texts = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    rows = st.lists(st.tuples(*[whole] * 3), min_size=images + texts, max_size=images + texts)
    z = np.float32(draw(rows))
    owner = st.lists(st.integers(0, images - 1), min_size=texts, max_size=texts)
    return z[:images], z[images:], np.array(draw(owner))


@settings(deadline=None, max_examples=60)
@given(with_ties(), st.sampled_from(["1", "8"]))
def test_ties_go_to_the_lower_index(case, mesh):
    zimg, ztxt, owner = case
    got = ranks(zimg, ztxt, owner, mesh=MESHES[mesh])
    check(got, sorted_places(zimg @ ztxt.T, owner))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    zimg, ztxt = embeddings(rng, 9, 8), embeddings(rng, 20, 8)  # no ties
    owner = rng.integers(0, 9, 20)
    before = ranks(zimg, ztxt, owner)
    images, texts = rng.permutation(9), rng.permutation(20)
    after = ranks(zimg[images], ztxt[texts], np.argsort(images)[owner[texts]])
    np.testing.assert_array_equal(after.img2txt, before.img2txt[images])
    np.testing.assert_array_equal(after.txt2img, before.txt2img[texts])


@pytest.mark.parametrize("mesh", MESHES)
def test_equal_embeddings_tie_wherever_they_are(mesh):
    """The same caption of several pictures, the same picture twice: rounding decides nothing."""
    rng = np.random.default_rng(0)
    zimg, ztxt = embeddings(rng, 150, 768), embeddings(rng, 200, 768)
    similarity = zimg.astype(np.float64) @ ztxt.T.astype(np.float64)
    images, texts = rng.integers(0, 150, 900), rng.integers(0, 200, 1100)
    owner = rng.integers(0, 900, 1100)
    got = ranks(zimg[images], ztxt[texts], owner, mesh=MESHES[mesh], chunk=300)
    check(got, sorted_places(similarity[images][:, texts], owner))


def test_a_model_that_knows_nothing_gets_no_credit():
    places = ranks(np.ones((50, 4)), np.ones((50, 4)), np.arange(50))
    assert places.img2txt.tolist() == places.txt2img.tolist() == list(range(50))


def test_an_image_without_a_text_is_never_found():
    places = ranks(np.eye(3), np.eye(3)[:2], [0, 2])
    assert places.img2txt.tolist() == [0, NEVER, 1]


def test_jax_arrays_and_half_precision():
    rng = np.random.default_rng(1)
    zimg, ztxt = (jnp.asarray(embeddings(rng, 40, 8), jnp.bfloat16) for _ in range(2))
    owner = jnp.arange(40)[::-1]
    exact = [np.asarray(z, np.float64) for z in (zimg, ztxt)]
    check(ranks(zimg, ztxt, owner), sorted_places(exact[0] @ exact[1].T, np.asarray(owner)))


@pytest.mark.parametrize("devices", [1, 8])
def test_100k_by_100k_fits(devices):
    """Compiled, not run: 16 MB of temporary memory a device, and nothing larger than its rows."""
    n, d, mesh = 100_000, 768, MESHES[str(devices)]
    shapes = padded_shapes(n, n, d, mesh)
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in zip(
            (*shapes, ()), (np.float32, np.float32, *[np.int32] * 2), strict=True
        )
    ]
    program = compiled(mesh).lower(*arguments).compile()
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes < 24e6
    assert memory.argument_size_in_bytes < 1.05 * 2 * n * d * 4 / devices
    arrays = re.findall(r"\b(?:f32|s32|pred)\[([\d,]+)\]", program.as_text())
    sizes = [math.prod(map(int, shape.split(","))) for shape in arrays]
    rows = max(math.prod(shape) for shape in shapes[:2]) / devices
    assert len(sizes) > 20 and max(sizes) <= rows * 1.1 < n * n / devices / 16


def test_sizes_of_one_shape_share_a_program():
    program = compiled(ONE)
    before = program._cache_size()
    for n in (130, 200, 256):
        z = embeddings(np.random.default_rng(n), n, 5)
        ranks(z, z, np.arange(n))
    assert program._cache_size() == before + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zimg": np.eye(3)[0]}, r"zimg must have shape \(n, d\) with n at least 1, got \(3,\)"),
        ({"ztxt": np.zeros((0, 3))}, r"ztxt must have shape \(n, d\).*got \(0, 3\)"),
        ({"ztxt": np.eye(4)}, "zimg has 3 columns, ztxt has 4; both must come from one model"),
        (
            {"zimg": np.array([[0, 0, 0], [np.nan, 0, 0], [0, 0, np.inf]])},
            "2 rows of zimg are not finite, the first is row 1; leave out",
        ),
        ({"image_of_text": [0, 1]}, r"one integer for each of the 3 texts, got int64 of shape"),
        ({"image_of_text": [0.0, 1, 2]}, "one integer for each of the 3 texts, got float64"),
        ({"image_of_text": [0, 1, 3]}, r"image_of_text must lie in 0\.\.2, got 0\.\.3"),
        ({"image_of_text": [0, -1, 2]}, r"image_of_text must lie in 0\.\.2, got -1\.\.2"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ],
)
def test_bad_input(change, message):
    good = {"zimg": np.eye(3), "ztxt": np.eye(3), "image_of_text": [0, 1, 2]}
    with pytest.raises(ValueError, match=message):
        ranks(**(good | change))
