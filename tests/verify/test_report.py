"""`siglip-jax verify`: right numbers pass, wrong ones fail, the rest says what it needs."""

import json
from shutil import copytree, ignore_patterns

import command_line
import numpy as np
import pytest
from doctored import roomy, saved, tokenizer
from pictures import scene
from PIL import Image
from saved_model import VOCABULARY

import siglip_jax
from siglip_jax.checkpoints import find
from siglip_jax.cli.output import aligned
from siglip_jax.preprocessing import custom_profile
from siglip_jax.scoring import Scorer
from siglip_jax.verify import circles, published_logits
from siglip_jax.verify import report as verify_module
from siglip_jax.verify.published_logits import Published
from siglip_jax.verify.report import Outcome, Report, Value, verify

cli, surroundings = command_line.cli, command_line.surroundings
pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(saved(tmp_path_factory.mktemp("verified") / "m"))


@pytest.fixture(scope="module")
def naflex(tmp_path_factory):
    return str(saved(tmp_path_factory.mktemp("verified") / "n", "naflex", pad=0))


@pytest.fixture
def publish(monkeypatch):
    """Makes tables the published ones of whatever is verified."""

    def as_published(*tables):
        monkeypatch.setattr(verify_module, "published_for", lambda checkpoint: tables)
        # A tiny model has the profile of its own shape, not of a released checkpoint.
        monkeypatch.setattr(Published, "profile_of", lambda table, checkpoint: profile(table))

    def profile(table):
        name = "naflex" if table.drawn else "loop"
        pad = 0 if table.drawn else 1
        return custom_profile(roomy(name)[0].config, pad, table.profile)

    return as_published


def circle_table(logits, **kw):
    return Published(
        **{
            "name": "circles",
            "source": "a test",
            "profile": "transformers",
            "tolerance": 1e-3,
            **kw,
        },
        logits=tuple(map(tuple, logits)),
        texts=circles.TEXTS,
        drawn=True,
    )


def circle_logits():
    """As a caller of the library gets them, with transformers' preprocessing."""
    tiny, params, _ = roomy("naflex")
    profile = custom_profile(tiny.config, 0, "transformers")
    scorer = Scorer(tiny, params, profile=profile, tokenizer=tokenizer(profile))
    return scorer.score(list(circles.pictures().values()), circles.TEXTS).logits


def test_a_good_model_passes(cli, model):
    code, out, err = cli("verify", model)
    assert (code, err) == (0, [])
    *lines, _, last = out.splitlines()
    assert all(line.startswith("ok") for line in lines) and len(lines) == 12
    assert last == "no logits have been published for a model that is no released one"
    code, out, _ = cli("verify", model, "--json")
    plain = json.loads(out)
    assert (code, plain["ok"], plain["checkpoint"], plain["published"]) == (0, True, None, [])
    names = [check["name"] for check in plain["checks"]]
    assert {"strict load", "parameters", "finite weights", "token ids", "bias b"} <= set(names)


def test_published_numbers_that_are_ours_agree(cli, naflex, publish):
    publish(circle_table(np.round(circle_logits(), 4)))
    code, out, err = cli("verify", naflex, "--json")
    (table,) = json.loads(out)["published"]
    assert (code, err, table["status"], len(table["values"])) == (0, [], "agrees", 21)
    assert max(value["difference"] for value in table["values"]) < 1e-4
    _, out, _ = cli("verify", naflex)
    assert "circles: a test; profile transformers" in out
    assert "circle 224x224    circle  " in out and "agrees: largest difference " in out


def test_one_published_number_that_is_not_ours_differs(cli, naflex, publish):
    logits = circle_logits()
    logits[2, 5] += 0.0021
    publish(circle_table(logits))
    code, out, _ = cli("verify", naflex)
    assert code == 2
    (line,) = [line for line in out.splitlines() if line.rstrip().endswith("0.0021")]
    assert line.split()[:4] == ["circle", "224x1024", "a", "dog"]
    assert "  differs: largest difference 0.0021, tolerance 0.001" in out
    assert "these weights, or the images, are not those behind" in out
    publish(circle_table(logits, tolerance=3e-3))
    assert cli("verify", naflex)[0] == 0


def test_another_profile_gives_other_numbers(naflex, publish):
    """The table's own preprocessing is used, not the model's."""
    logits = circle_logits()
    publish(circle_table(logits), circle_table(logits, profile="open_clip"))
    report = verify(siglip_jax.load(naflex))
    assert [outcome.status for outcome in report.outcomes] == ["agrees", "differs"]
    assert not report.ok


def test_random_weights_do_not_have_the_published_logits(cli, naflex, publish):
    per_text = circles.LOGITS_PER_TEXT["siglip2_b16_naflex"]
    publish(circle_table(zip(*per_text, strict=True)))
    code, out, _ = cli("verify", naflex)
    assert code == 2 and "differs: largest difference" in out


def file_table(logits, **kw):
    given = {"name": "t", "source": "a test", "profile": "big_vision", "tolerance": 1e-3, **kw}
    urls = {"a.png": "http://h/a.png", "b.png": "http://h/b.png"}
    return Published(**given, logits=tuple(map(tuple, logits)), urls=urls, texts=("cat", "a dog"))


def file_logits(folder):
    for i, name in enumerate(("a.png", "b.png")):
        Image.fromarray(scene(50, 60 + i, seed=i)).save(folder / name)
    tiny, params, profile = roomy("loop")
    scorer = Scorer(tiny, params, profile=profile, tokenizer=tokenizer(profile))
    return scorer.score([folder / "a.png", folder / "b.png"], ["cat", "a dog"]).logits


def test_pictures_that_are_given(cli, model, publish, tmp_path):
    logits = file_logits(tmp_path)
    publish(file_table(logits), file_table(logits - np.float32(-9.5), with_bias=False))
    code, out, err = cli("verify", model, tmp_path)
    assert (code, err, out.count("  agrees: ")) == (0, [], 2)
    code, out, err = cli("verify", model)
    assert (code, err) == (0, [])  # what cannot be run is not wrong
    assert "needs a.png (http://h/a.png)\n    and b.png (http://h/b.png)\n" in out
    (tmp_path / "b.png").write_text("not a picture")
    code, out, err = cli("verify", model, tmp_path)
    assert (code, len(err)) == (2, 1) and "b.png: not an image" in err[0]


def test_long_tables_show_the_worst(cli, model, publish, tmp_path):
    (tmp_path / "t").mkdir()
    file_logits(tmp_path / "t")
    texts = [f"{i} dogs" for i in range(20)]
    (tmp_path / "t" / "texts.txt").write_text("\n".join(texts))
    (tmp_path / "t" / "pictures.txt").write_text("b.png\na.png\n")
    tiny, params, profile = roomy("loop")
    scorer = Scorer(tiny, params, profile=profile, tokenizer=tokenizer(profile))
    files = [tmp_path / "t" / name for name in ("b.png", "a.png")]
    logits = scorer.score(files, texts).logits
    logits[1, 7] += 0.5
    rows = tuple(map(tuple, logits))
    publish(
        Published(
            name="t", source="s", profile="big_vision", tolerance=1e-3, logits=rows, lists="x"
        )
    )
    code, out, _ = cli("verify", model, tmp_path)
    assert code == 2 and "the 8 worst of 40 values" in out
    shown = out[out.index("PICTURE") :].splitlines()
    assert len(shown) == 1 + 8 + 3 and shown[1].split()[:3] == ["a.png", "7", "dogs"]


def test_without_a_vocabulary_the_rest_is_checked(cli, naflex, publish, tmp_path):
    folder = copytree(naflex, tmp_path / "n", ignore=ignore_patterns("tokenizer.model"))
    publish(circle_table(circle_logits()))
    code, out, err = cli("verify", folder)
    assert (code, err) == (0, [])
    assert "not run  texts" in out and "name a file" in out
    assert "not run; needs a vocabulary" in out
    code, out, _ = cli("verify", folder, "--vocabulary", VOCABULARY)
    assert code == 0 and "agrees" in out


def test_a_tensor_that_is_not_finite_is_named(cli, tmp_path):
    tiny, params, profile = roomy("loop")
    params["txt"]["head"]["kernel"][3, 3] = np.nan
    siglip_jax.save(tmp_path / "bad", tiny, params, profile=profile, vocabulary=VOCABULARY)
    code, out, (line,) = cli("verify", tmp_path / "bad")
    assert (code, out) == (2, "") and "txt/head/kernel" in line and "NaN" in line


def test_not_a_number_never_agrees():
    table = file_table([[1.0, 2.0], [3.0, 4.0]])
    values = (Value("a", "b", 1.0, 1.0), Value("a", "c", 1.0, float("nan")))
    outcome = Outcome(table, values, ())
    assert (outcome.largest, outcome.status) == (np.inf, "differs")
    assert not Report([], [outcome]).ok


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npz"], "nowhere.npz does not exist"),
        (["siglip_b16_225"], "did you mean siglip_b16_224"),
        (["M", "nowhere"], "nowhere: there is no such folder of images"),
        (["M", "--profil", "x"], "there is no option --profil"),
        ([], "the following arguments are required: MODEL"),
    ],
)
def test_bad_arguments_get_one_line(cli, model, arguments, message):
    code, out, err = cli("verify", *(model if a == "M" else a for a in arguments))
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_columns_are_aligned():
    assert aligned([("a", "1"), ("bb", "22")], "lr", ">") == ">a    1\n>bb  22"


def test_a_released_architecture_meets_its_published_tables():
    """All of verify but the weights: of each released shape the inputs can be prepared."""
    for name in circles.LOGITS_PER_TEXT:
        (table,) = published_logits.published_for(find(name))
        profile = table.profile_of(find(name))
        assert (profile.name, profile.image.resize) == ("transformers", "torch_bilinear")
    apples, cats = published_logits.published_for(find("siglip_b16_224"))
    assert apples.profile_of(find("siglip_b16_224")).image.decode == "pillow"
    assert cats.profile_of(find("siglip_b16_224")).image.resize == "torch_bicubic"
