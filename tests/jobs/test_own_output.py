"""A job whose output would be a part of its source."""

import fsspec
import pytest
from job_inputs import picture
from saved_model import saved

import siglip_jax
from siglip_jax.jobs import embed

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def memory():
    memory = fsspec.filesystem("memory")
    for n in range(3):
        memory.pipe_file(f"/b/images/{n}.png", picture(n))
    yield memory
    memory.rm("/b", recursive=True)


@pytest.mark.parametrize(
    ("spec", "out"),
    [
        ("memory://b/images", "memory://b/images/out"),
        ("memory://b/images/", "memory://b/images/deep/out"),
        ("memory://b", "memory://b/out"),
        ("memory://b/**", "memory://b/out"),
        ("memory://b/{images,more}", "memory://b/images/out"),
    ],
)
def test_a_prefix_inside_the_source_is_refused(model, memory, spec, out):
    before = memory.find("/b")
    if "{" in spec:
        memory.pipe_file("/b/more/4.png", picture(4))
        before = memory.find("/b")
    with pytest.raises(
        ValueError,
        match=r"out lies in the source, memory://b.*, whose listing would have the job's own files "
        r"in it; choose another prefix as out, or name the source by a pattern, such as \*\.tar$",
    ):
        embed(spec, out, model=model)
    assert memory.find("/b") == before


@pytest.mark.parametrize(
    ("spec", "out"),
    [
        ("memory://b/images/*.png", "memory://b/images/out"),
        ("memory://b/images/*", "memory://b/images/out"),
        ("memory://b/images", "memory://b/images2"),
        ("memory://b/**/*.png", "memory://b/out"),
    ],
)
def test_one_that_no_listing_finds_is_not(model, memory, spec, out):
    assert embed(spec, out, model=model).items == 3
    assert embed(spec, out, model=model).already


def test_a_folder_inside_the_source_is_left_out(model, tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    assert embed(str(tmp_path), tmp_path / "out", model=model).items == 3
    with pytest.warns(UserWarning, match="what jobs have written is left out: out"):
        assert embed(str(tmp_path), tmp_path / "out", model=model).already
