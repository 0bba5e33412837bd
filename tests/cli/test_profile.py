"""--profile on the command line: names, folders of ours, and folders with settings of their own."""

import json

import numpy as np
import pytest

import siglip_jax
from siglip_jax.cli.main import make_parser
from siglip_jax.converters import convert

pytestmark = pytest.mark.usefixtures("surroundings")
LABELS = ["a cat", "a dog"]


def takers():
    """The commands that take a profile."""
    (commands,) = (a for a in make_parser()._actions if a.dest == "command")
    return [name for name, sub in commands.choices.items() if "--profile" in sub.format_help()]


def test_which_commands_take_a_profile():
    expected = ["score", "explain", "embed", "search", "serve", "evaluate", "calibrate", "doctor"]
    assert takers() == expected


@pytest.mark.parametrize("command", takers())
def test_an_unknown_name_is_refused_with_a_near_one(cli, model, pictures, command):
    given = [] if command in ("doctor", "serve") else [pictures / "b.png"]
    code, out, err = cli(command, *given, "--model", model, "--profile", "transformer")
    assert (code, out) == (2, "")
    assert (
        "profile must be one of big_vision, transformers, open_clip, folder, got 'transformer'; "
        "did you mean transformers?"
    ) in err[-1]


def test_a_profile_acts_on_a_folder_of_ours(cli, model, pictures):
    argv = ["score", "--model", model, pictures / "b.png", "--labels", *LABELS, "--json"]
    found = {}
    for name in ("folder", "transformers"):
        code, out, err = cli(*argv, "--profile", name)
        assert (code, err) == (0, [])
        found[name] = json.loads(out)
    assert [f["profile"] for f in found.values()] == ["big_vision", "transformers"]
    logits = {n: [s["logit"] for s in f["images"][0]["scores"]] for n, f in found.items()}
    assert logits["folder"] != logits["transformers"]
    scorer = siglip_jax.load(model, profile="transformers").scorer()
    scores = scorer.score([pictures / "b.png"], LABELS).top()[0]
    np.testing.assert_allclose(logits["transformers"], [s.logit for s in scores], rtol=1e-5)


@pytest.mark.filterwarnings("always:.*preprocessor_config")
def test_a_folders_own_settings_are_followed_with_one_warning(cli, hf, pictures):
    file = hf / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_normalize": False}))
    argv = ["embed", pictures / "b.png", "--model", hf, "--out", "x.npz"]
    code, out, err = cli(*argv)
    assert code == 0 and len(err) == 1
    assert err[0].startswith(f"siglip-jax: warning: {hf}: {file} is followed, whose settings are")
    assert "mean 0 (released: 0.5), std 1 (released: 0.5)" in err[0]
    assert str(np.load("x.npz")["profile"]) == "folder"
    code, out, err = cli(*argv[:-1], "y.npz", "--profile", "big_vision")
    assert (code, len(err)) == (0, 1) and "profile big_vision leaves aside what" in err[0]
    code, out, _ = cli("show", hf)
    assert code == 0 and "mean 0 (released: 0.5)" in out


def test_a_folder_that_does_not_say(cli, hf, pictures):
    (hf / "preprocessor_config.json").unlink()
    argv = ["embed", pictures / "b.png", "--model", hf, "--out", "x.npz", "--profile", "folder"]
    code, _, err = cli(*argv)
    assert (code, len(err)) == (2, 1)
    assert err[0].endswith(
        "does not say how its images are prepared; give --profile big_vision, transformers or "
        "open_clip"
    )


def test_conversions_say_what_they_keep(cli, hf):
    file = hf / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_normalize": False}))
    code, out, err = cli("convert", hf, "oc", "--to", "open_clip")
    assert (code, err) == (0, [])
    assert "images are prepared as the source says (as released in brackets): mean 0 (0.5)" in out
    code, out, err = cli("convert", hf, "x.npz", "--to", "npz")
    assert (code, err) == (0, [])
    assert "npz cannot say how the source prepares images" in out


@pytest.mark.parametrize("to", ["siglip_jax", "transformers", "timm"])
def test_each_profile_of_a_tower_alone(cli, model, pictures, to):
    """Acts, or is refused: timm does not say which of the two ways of transformers is its own."""
    convert(model, "tower", to=to, tower="image")
    made = {}
    for name in ("folder", "big_vision", "transformers", "open_clip"):
        argv = ["embed", pictures / "b.png", "--model", "tower", "--out", "x.npz", "--force"]
        code, _, err = cli(*argv, "--profile", name)
        if (to, name) == ("timm", "transformers"):
            assert code == 2 and "does not say whether it is a SigLIP or a SigLIP 2" in err[-1]
            continue
        assert code == 0
        made[name] = np.load("x.npz")["zimg"]
    own = {"siglip_jax": "big_vision", "timm": "open_clip"}.get(to, to)
    np.testing.assert_array_equal(made["folder"], made[own])
    others = [made[name] for name in made if name not in ("folder", own)]
    assert others and not any(np.array_equal(made["folder"], other) for other in others)
