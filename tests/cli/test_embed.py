"""`siglip-jax embed`."""

import command_line
import numpy as np
import pytest

import siglip_jax

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
)
pytestmark = pytest.mark.usefixtures("surroundings")
LABELS = ["a cat", "a dog", "a donut"]


def test_embed_images(cli, model, pictures, tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    code, out, err = cli("embed", pictures, "x.jpg", "--model", model, "--out", "z.npz")
    assert (code, out) == (2, "")
    assert err == ["siglip-jax: error: x.jpg: not an image in a known format"]
    loaded = siglip_jax.load(model)
    files = [str(pictures / name) for name in ("a.PNG", "b.png", "sub/c.png")]
    with np.load("z.npz") as z:
        assert set(z.files) == {"zimg", "images", "t", "b", "model", "profile", "dtype", "weights"}
        assert z["images"].tolist() == files
        assert (str(z["model"]), str(z["profile"]), str(z["dtype"])) == (
            "m",
            "big_vision",
            "float32",
        )
        expected = loaded.scorer(tokenizer=False).embed_images(files)
        np.testing.assert_allclose(z["zimg"], expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(z["t"], loaded.params["t"])


def test_embed_texts(cli, model, tmp_path):
    assert cli("embed", "--model", model, "--texts", *LABELS, "--out", "a.npz") == (0, "", [])
    (tmp_path / "texts.txt").write_text("\n".join(LABELS))
    assert cli("embed", "--model", model, "--texts-file", "texts.txt", "--out", "b.npz")[0] == 0
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert a["texts"].tolist() == LABELS
        np.testing.assert_array_equal(a["ztxt"], b["ztxt"])
        np.testing.assert_allclose(np.linalg.norm(a["ztxt"], axis=1), 1, rtol=1e-6)


def test_embed_replaces_only_when_told(cli, model, tmp_path):
    (tmp_path / "z.npz").write_text("mine")
    argv = ("embed", "--model", model, "--texts", "a cat", "--out", "z.npz")
    assert cli(*argv) == (2, "", ["siglip-jax: error: z.npz exists already; --force replaces it"])
    assert (tmp_path / "z.npz").read_text() == "mine"
    assert cli(*argv, "--force")[0] == 0
    with np.load("z.npz") as z:
        assert z["ztxt"].shape == (1, 24)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(28, "No space left on device"), 2, "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory; try a smaller --batch-size, --weights bfloat16, or"),
    ],
)
def test_embed_leaves_nothing_half_written(cli, model, monkeypatch, tmp_path, error, code, line):
    def fails(file, **arrays):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", fails)
    before = sorted(tmp_path.iterdir())
    got, out, err = cli("embed", "--model", model, "--texts", "a cat", "--out", "z.npz")
    assert (got, out, len(err)) == (code, "", 1)
    assert err[0].startswith(f"siglip-jax: error: {line}")
    assert sorted(tmp_path.iterdir()) == before


def test_embed_writes_nothing_where_nothing_could_be_read(cli, model, tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    code, _, err = cli("embed", "x.jpg", "y.jpg", "--model", model, "--out", "z.npz")
    assert code == 2 and len(err) == 2 and not (tmp_path / "z.npz").exists()
