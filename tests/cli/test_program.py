"""`--program`: score and embed start from what `siglip-jax plan --save` wrote."""

import json

import command_line
import numpy as np
import pytest
import shapes
from job_inputs import table

import siglip_jax.models.two_towers

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings, compiled_once = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
    shapes.compiled_once,
)
pytestmark = pytest.mark.usefixtures("compiled_once", "surroundings")
LABELS = ("--labels", "cat", "dog", "red")


@pytest.fixture
def save(cli, model, tmp_path):
    def save(*options, of=model, dtype="float32"):
        path = tmp_path / "saved.zip"
        argv = (
            "--on",
            "local",
            "--batch-size",
            "8",
            "--no-search",
            "--dtype",
            dtype,
            "--save",
            path,
        )
        code, _, err = cli("plan", of, *argv, *options)
        assert (code, err) == (0, [])
        return path

    return save


@pytest.fixture
def untraced(monkeypatch):
    """After it is called, tracing a model fails."""

    def refuse(*args, **kw):
        raise AssertionError("the model was traced")

    return lambda: monkeypatch.setattr(siglip_jax.models.two_towers.SiglipModel, "__call__", refuse)


def hits(out):
    return {
        (image["image"], hit["label"]): hit["logit"]
        for image in json.loads(out)["images"]
        for hit in image["scores"]
    }


def test_score(cli, model, pictures, save, untraced):
    argv = ("score", pictures, "--model", model, "--json")
    _, expected, _ = cli(*argv, "--batch-size", "8", *LABELS)
    path = save()
    untraced()
    code, out, err = cli(*argv, "--program", path, *LABELS)
    assert (code, err) == (0, [])
    # The same program but for the texts, which are 8 a batch here and 4 there.
    expected, out = hits(expected), hits(out)
    assert out.keys() == expected.keys() and len(out) == 9
    np.testing.assert_allclose([out[k] for k in expected], list(expected.values()), rtol=1e-5)


def test_its_dtype_and_layers_are_taken_over(cli, model, pictures, save, untraced):
    path = save("--scan", dtype="bfloat16")
    untraced()
    argv = ("score", pictures, "--model", model, "--json", "--program", path)
    code, out, err = cli(*argv, *LABELS)
    assert (code, err, json.loads(out)["dtype"]) == (0, [], "bfloat16")


def test_embed_into_a_file_and_a_folder(cli, model, pictures, tmp_path, save, untraced):
    argv = ("embed", pictures, "--model", model)
    cli(*argv, "--batch-size", "8", "--out", "own.npz")
    path = save("--task", "images")
    untraced()
    for out in ("saved.npz", "folder"):
        code, _, err = cli(*argv, "--program", path, "--out", out)
        assert (code, err) == (0, [])
    own, saved = np.load("own.npz"), np.load("saved.npz")
    np.testing.assert_array_equal(own["zimg"], saved["zimg"])
    rows = table(tmp_path / "folder").to_pylist()
    np.testing.assert_array_equal([row["embedding"] for row in rows], own["zimg"])


def test_score_into_a_folder(cli, model, pictures, tmp_path, save, untraced):
    path = save()
    untraced()
    argv = ("score", pictures, "--model", model, "--program", path, "--out", "s")
    code, _, err = cli(*argv, *LABELS)
    assert (code, err) == (0, []) and len(table(tmp_path / "s")) == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--program", "none.zip"], "none.zip: there is no such file"),
        (["--program", "model"], "is no program that siglip-jax plan --save wrote"),
        (["--dtype", "bfloat16"], "--dtype bfloat16: saved.zip was saved with float32; leave --d"),
        (["--batch-size", "16"], "--batch-size 16: saved.zip was saved with 8; leave --batch-"),
    ],
    ids=["missing", "not one", "dtype", "batch"],
)
@pytest.mark.parametrize("out", [[], ["--out", "folder"]], ids=["here", "job"])
def test_what_does_not_fit(cli, model, pictures, tmp_path, save, argv, said, out):
    save()
    (tmp_path / "model").write_text("text")
    program = [] if "--program" in argv else ["--program", "saved.zip"]
    code, _, err = cli("score", pictures, "--model", model, *program, *argv, *out, *LABELS)
    assert (code, len(err)) == (2, 1) and said in err[0]


def test_another_model(cli, model, pictures, save):
    path = save(of="siglip_emoji")
    code, _, err = cli("score", pictures, "--model", model, "--program", path, *LABELS)
    assert (code, len(err)) == (2, 1)
    assert "the saved program is of another model than the scorer" in err[0]
    assert err[0].endswith("siglip-jax plan MODEL --on local --save FILE")


def test_the_bundled_model_whose_weights_are_float16(cli, pictures, save):
    path = save(of="siglip_emoji")
    argv = ("score", pictures, "--model", "siglip_emoji", *LABELS, "--json", "--batch-size", "8")
    code, out, err = cli(*argv, "--program", path)
    assert (code, err) == (0, [])
    assert hits(out) == hits(cli(*argv)[1])


def test_pairs_need_as_many_texts(cli, model, pictures, save):
    path = save("--text-batch-size", "16")
    (pictures / "pairs.csv").write_text("image,caption\nb.png,a cat\n")
    argv = ("--pairs", "--out", "p", "--program", path)
    code, _, err = cli("score", pictures / "pairs.csv", "--model", model, *argv)
    assert (code, len(err)) == (2, 1) and "pairs need a saved program with as many" in err[0]
