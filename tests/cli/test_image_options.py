"""--exif and --max-pixels: images that lie on their side, and large ones."""

import io

import command_line
import numpy as np
import pytest
import shapes
from job_inputs import table
from PIL import Image
from saved_model import saved

import siglip_jax

cli, model, surroundings, compiled_once = (
    command_line.cli,
    command_line.model,
    command_line.surroundings,
    shapes.compiled_once,
)
pytestmark = pytest.mark.usefixtures("compiled_once", "surroundings")

SAID = (
    "siglip-jax: warning: {} an EXIF rotation that is not applied, as in big_vision; --exif "
    "(exif of the image profile) applies it"
)


def jpeg(orientation=None, size=(40, 20)):
    """An image that is not what it is on its side."""
    pixels = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    image, file = Image.fromarray(pixels.astype(np.uint8)), io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, orientation in (("a.jpg", 6), ("b.jpg", 1), ("c.jpg", None), ("d.jpg", 8)):
        (folder / name).write_bytes(jpeg(orientation))
    return folder


@pytest.mark.filterwarnings("default")
def test_a_rotation_that_is_not_applied_is_counted(cli, model, photos):
    argv = ("embed", photos, "--model", model)
    for out in ("z", "z.npz"):
        code, _, err = cli(*argv, "--out", out)
        assert (code, err) == (0, [SAID.format("2 images carry")])
        code, _, err = cli(*argv, "--out", f"exif-{out}", "--exif")
        assert (code, err) == (0, [])
    code, _, err = cli("score", photos / "a.jpg", "--model", model, "--labels", "a cat")
    assert (code, err) == (0, [SAID.format("1 image carries")])
    plain, turned = (np.load(name)["zimg"] for name in ("z.npz", "exif-z.npz"))
    same = [np.array_equal(one, other) for one, other in zip(plain, turned, strict=True)]
    assert same == [False, True, True, False]
    rows = table(photos.parent / "exif-z")
    np.testing.assert_allclose(np.array(rows["embedding"].to_pylist()), turned, rtol=0, atol=1e-6)
    assert rows["width"].to_pylist() == [20, 40, 40, 20]
    # Another preparation is another index, and a search prepares as its index did.
    code, _, err = cli(*argv, "--out", "z", "--exif")
    assert code == 2 and "space.profile.image.exif is False there and True here" in err[0]
    code, out, err = cli("search", "exif-z", photos / "a.jpg", "--top", "1", "--model", model)
    assert (code, err) == (0, []) and out.splitlines()[1].split("\t")[2:4] == ["a.jpg", "1"]


@pytest.mark.filterwarnings("default")
def test_large_images_are_read_when_asked_for(cli, model, tmp_path, monkeypatch):
    """108 megapixels, as phones take them; as a PNG, which Pillow has a limit of its own for."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back at the end
    folder = tmp_path / "large"
    folder.mkdir()
    Image.new("1", (12000, 9000)).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(jpeg())
    argv = ("embed", folder, "--model", model, "--out", "z", "--max-error-share", "0.5")
    code, out, err = cli(*argv)
    assert code == 0 and len(err) == 1 and "1 item is in error; --retry-all" in err[0]
    assert (
        "a.png: 12000x9000 is 108,000,000 pixels, more than the limit of 89,478,485; raise "
        "max_pixels in the profile (--max-pixels) if you trust it" in out
    )
    code, _, err = cli(*argv, "--max-pixels", "200000000", "--retry-all")
    assert (code, err) == (0, [])
    assert table(tmp_path / "z")["error"].to_pylist() == [None, None]
    code, _, err = cli(*argv[:-4], "--out", "y", "--max-pixels", "799")
    assert code == 2 and "--retry-all" in err[0]
    for wrong in ("0", "many"):
        code, _, err = cli(*argv, "--max-pixels", wrong)
        assert code == 2 and "--max-pixels: expected a whole number of at least 1" in err[0]


def test_in_python(tmp_path, photos):
    loaded = siglip_jax.load(saved(tmp_path / "m"))
    with pytest.warns(UserWarning, match="2 images carry an EXIF rotation that is not applied"):
        siglip_jax.jobs.embed(str(photos), tmp_path / "out", model=loaded)
