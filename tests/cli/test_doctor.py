"""`siglip-jax doctor`."""

import json

import numpy as np
import pytest
from doctored import doctor, plant, saved

from siglip_jax.verify import inputs

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(saved(tmp_path_factory.mktemp("doctored") / "m"))


def table(out):
    head, *lines = out.splitlines()
    assert head.split()[:2] == ["TOWER", "WRONG"]
    return lines


def test_without_settings_every_known_one_is_in_the_table(cli, model):
    code, out, err = cli("doctor", "--model", model)
    assert (code, err) == (0, [])
    d = doctor("loop")
    expected = {f"{t} {k} {v}" for t in d.right for ((k, v),) in d.settings(t)}
    assert {" ".join(line.split()[:3]) for line in table(out)} == expected
    _, out, _ = cli("doctor", "--model", model, "--json")
    plain = json.loads(out)
    assert plain["right"]["text"]["padding"] == "max_length"
    assert (plain["model"], plain["inputs"]) == ("m", inputs.inputs_digest())
    assert len(plain["effects"]) == len(expected) and plain["diagnoses"] == []


def test_stated_settings_alone_and_together(cli, model):
    code, out, err = cli(
        *("doctor", "--model", model, "--padding", "longest", "--lower", "none"),
        *("--antialias", "on", "--activation", "erf", "--punctuation", "keep", "--json"),
    )
    assert (code, err) == (0, [])
    settings = [effect["settings"] for effect in json.loads(out)["effects"]]
    assert settings == [
        {"image": {"resize": "tf_antialias"}},
        {"image": {"activation": "erf"}},
        {"text": {"padding": "longest"}},
        {"text": {"lower": "none"}},
        {"text": {"activation": "erf"}},
        {
            "image": {"resize": "tf_antialias", "activation": "erf"},
            "text": {"padding": "longest", "lower": "none", "activation": "erf"},
        },
    ]
    _, out, _ = cli("doctor", "--model", model, "--text-activation", "erf", "--pad", "0")
    rows = table(out)
    assert [row.split()[:3] for row in rows[:2]] == [
        ["text", "pad", "0"],
        ["text", "activation", "erf"],
    ]
    assert rows[2].startswith("text") and "all of these" in rows[2]
    _, out, _ = cli("doctor", "--model", model, "--padding", "max_length")
    assert out == "these settings are all as they should be\n"


@pytest.mark.filterwarnings("ignore:1 of 12 texts are longer")  # as it is meant to be
@pytest.mark.filterwarnings("ignore:.*what is no image is left out")
def test_our_own_embeddings_of_the_written_inputs_are_the_same(cli, model):
    assert cli("doctor", "--write-inputs", "in")[:2] == (0, "")
    assert cli("embed", "in", "--model", model, "--out", "i.npz")[0] == 0
    assert cli("embed", "--model", model, "--texts-file", "in/texts.txt", "--out", "t.npz")[0] == 0
    code, out, err = cli("doctor", "--model", model, "--embeddings", "i.npz", "t.npz")
    assert (code, err) == (0, [])
    assert [line.split(":")[0] for line in out.splitlines()] == ["image", "text"]
    assert out.count("the embeddings of m (distance") == 2


def test_planted_settings_are_named(cli, model):
    d = doctor("loop")
    np.savez(
        "theirs.npz",
        zimg=plant(d, "image", (("resize", "pil_bicubic"),)),
        ztxt=plant(d, "text", (("padding", "longest"), ("lower", "none"))),
    )
    code, out, err = cli("doctor", "--model", model, "--embeddings", "theirs.npz")
    assert (code, err) == (0, [])
    assert "explained by resize pil_bicubic (should be tf_bilinear); " in out
    assert "explained by padding longest (should be max_length), lower none (should be asc" in out
    assert "image and text  all of these" in out
    _, out, _ = cli("doctor", "--model", model, "--embeddings", "theirs.npz", "--json")
    image, text = json.loads(out)["diagnoses"]
    assert (image["verdict"], image["best"]["setting"]) == (
        "explained",
        {"resize": "pil_bicubic"},
    )
    assert text["best"]["setting"] == {"padding": "longest", "lower": "none"}
    known = ("--lower", "none", "--res", "40")
    _, out, _ = cli("doctor", "--model", model, "--embeddings", "theirs.npz", "--json", *known)
    image, text = json.loads(out)["diagnoses"]
    assert image["verdict"] != "explained"  # it is not 40 pixels
    assert text["best"]["setting"] == {"padding": "longest", "lower": "none"}


def test_rounding_and_rows_that_do_not_fit_are_named(cli, model):
    d = doctor("loop")
    z = {tower: plant(d, tower, ()) for tower in ("image", "text")}
    texts, images = z["text"].astype(np.float16).astype(np.float32), z["image"]
    images[4] = images[0]
    np.savez("t.npz", zimg=images, ztxt=texts)
    code, out, err = cli("doctor", "--model", model, "--embeddings", "t.npz")
    assert (code, err) == (0, [])
    assert "image: the embeddings of m but for 1 of the rows (distance" in out
    assert "these rows do not fit, and no setting or two explain them: 5 (strokes)" in out
    assert ", within the rounding of float16, which moves rows by" in out
    code, out, err = cli("doctor", "--model", model, "--embeddings", "t.npz", "--json")
    image, text = json.loads(out)["diagnoses"]
    assert (image["verdict"], image["misfits"], image["rounding"]) == ("rows", [4], None)
    assert (text["verdict"], text["misfits"], text["rounding"]) == ("rounded", [], "float16")


def test_unexplained_is_said(cli, model):
    d = doctor("loop")
    noise = np.random.default_rng(0).normal(size=d.embed(d.right["image"]).shape)
    np.savez("theirs.npz", zimg=(3 * noise).astype(np.float32))
    code, out, _ = cli("doctor", "--model", model, "--embeddings", "theirs.npz")
    assert code == 0 and "no setting and no two settings explain it" in out
    assert "their rows have norms of" in out and "WRONG SETTING" not in out


def zimg(**kw):
    z = np.ones((8, 24), np.float32)
    for row, value in kw.items():
        z[int(row.removeprefix("row"))] = value
    return z


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"zimg": zimg()[:7]}, "bad.npz: zimg: expected 8 rows, one for each bundled picture"),
        ({"ztxt": zimg()}, "bad.npz: ztxt: expected 12 rows, one for each bundled text"),
        ({"zimg": zimg()[:, :9]}, "bad.npz: zimg: expected rows of width 24, got 9"),
        ({"zimg": zimg(row3=np.nan)}, "bad.npz: zimg: row 3 is not finite (1 such rows)"),
        ({"zimg": zimg(row5=0)}, "bad.npz: zimg: row 5 is zero"),
        ({"zimg": zimg().astype(int)}, "expected floats of shape (8, 24), got int64 of shape"),
        ({"zimg": zimg()[0]}, "expected floats of shape (8, 24), got float32 of shape (24,)"),
        ({"image": zimg()}, "bad.npz: expected arrays zimg, ztxt or both, got image"),
        ({"zimg": np.array([None])}, "bad.npz: not a .npz file with arrays of numbers"),
    ],
)
def test_bad_embeddings_get_one_line(cli, model, arrays, message):
    np.savez("bad.npz", **arrays)
    code, out, err = cli("doctor", "--model", model, "--embeddings", "bad.npz")
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_bad_files_get_one_line(cli, model, tmp_path):
    (tmp_path / "text.npz").write_text("zimg")
    np.savez(tmp_path / "good.npz", zimg=zimg())
    (tmp_path / "torn.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:300])
    np.save(tmp_path / "one.npy", zimg())
    (tmp_path / "empty.npz").touch()
    for names, message in (
        (["gone.npz"], "gone.npz: No such file or directory"),
        (["text.npz"], "text.npz: not a .npz file with arrays of numbers"),
        (["torn.npz"], "torn.npz: not a .npz file with arrays of numbers"),
        (["one.npy"], "one.npy: not a .npz file with arrays of numbers"),
        (["empty.npz"], "empty.npz: not a .npz file with arrays of numbers"),
        (["good.npz", "good.npz"], "good.npz: another file has an array zimg already"),
    ):
        code, out, err = cli("doctor", "--model", model, "--embeddings", *names)
        assert (code, out, len(err)) == (2, "", 1), names
        assert message in err[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model MODEL, or --write-inputs FOLDER"),
        (["--model", "M", "--lower", "acsii"], "got 'acsii'; did you mean ascii?"),
        (["--model", "M", "--poling", "last"], "there is no option --poling; did you mean --pool"),
        (["--model", "M", "--framing", "aspect"], "framing aspect is not for a fixed-resolution"),
        (["--model", "M", "--res", "7"], "res must be at least one patch, 8, got 7"),
        (["--model", "M", "--length", "49"], "length must be from 1 to 48, got 49"),
        (["--model", "M", "--pad", "320"], "pad must be an id below 320, got 320"),
        (["--model", "M", "--resize", "pil_bicubic", "--antialias", "off"], "always has antialias"),
        (["--model", "M", "--write-inputs", "."], ". exists already; choose another name"),
    ],
)
def test_bad_arguments_get_one_line(cli, model, arguments, message):
    code, out, err = cli("doctor", *(model if a == "M" else a for a in arguments))
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
