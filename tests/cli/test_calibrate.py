"""`siglip-jax calibrate`, and `score` and `search` with what it writes."""

import csv
import json

import command_line
import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import on_a_terminal
from paths import FIXTURES

import siglip_jax
from siglip_jax.calibration import Calibration

# pytest looks for fixtures among the names of a module.
cli, surroundings = command_line.cli, command_line.surroundings
pytestmark = pytest.mark.usefixtures("surroundings")
MODEL = ("--model", "siglip_emoji")
COUNT = 24


@pytest.fixture(autouse=True)
def data(tmp_path):
    """Emoji that the bundled model has not seen, their labels, and others that fit none."""
    table = pq.read_table(FIXTURES / "emoji_heldout.parquet")
    captions = json.loads(table.schema.metadata[b"evaluations"])["unseen_combinations"]["captions"]
    rows = [row for row in table.to_pylist() if row["evaluation"] == "unseen_combinations"]
    labels = []
    for folder, first in (("photos", 0), ("others", 100)):
        (tmp_path / folder).mkdir()
        for number, row in enumerate(rows[first : first + COUNT]):
            (tmp_path / folder / f"{number:02}.webp").write_bytes(row["image"])
            labels += [captions[row["right"][0]]] * (not first)
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    with (tmp_path / "labelled.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("file", "label"), *((f"photos/{n:02}.webp", label) for n, label in enumerate(labels))]
        )
    return labels


def calibrate(cli, data="labelled.csv", *argv, out="c.json", labels="labels.txt"):
    return cli("calibrate", data, *MODEL, "--labels-file", labels, "--out", out, *argv)


def told(cli, *argv):
    code, out, err = cli(*argv, "--json")
    assert (code, err) == (0, []), err
    return json.loads(out)


def test_without_labels(cli, tmp_path, data):
    code, out, err = calibrate(cli, "photos", "--expect", "1")
    assert (code, err) == (0, ["siglip-jax: written to c.json"])
    first, second, _, sums = out.splitlines()
    assert first == "24 images, 24 labels, not labelled" and second.startswith("expect: sigmoid(1 ")
    assert sums.split()[-1] == "1.000"
    made = Calibration.load(tmp_path / "c.json")
    scores = (
        siglip_jax.load("siglip_emoji")
        .scorer()
        .score(sorted((tmp_path / "photos").iterdir()), data)
    )
    assert made.probabilities(scores.logits).sum(1).mean() == pytest.approx(1, abs=1e-3)
    assert (made.identity.name, made.n, made.method) == ("siglip_emoji", 24, "expect")


def test_with_labels(cli, tmp_path):
    got = told(
        *(cli, "calibrate", "labelled.csv", *MODEL, "--labels-file", "labels.txt"),
        *("--out", "c.json", "--threshold", "f1", "--report", "report.html"),
    )
    assert (got["method"], got["images"], got["positives"]) == ("platt", 24, 24)
    assert got["after"]["nll"] < got["before"]["nll"] and got["before"]["auc"] > 0.95
    made = Calibration.load(tmp_path / "c.json")
    assert made.rule == "f1" and np.ptp(made.thresholds) == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<h1>Calibration of siglip_emoji</h1>" in page and "data:image/png;base64," in page


def test_a_label_cannot_write_html(cli, tmp_path, data):
    text = (tmp_path / "labels.txt").read_text().replace(data[0], "<script>")
    (tmp_path / "labels.txt").write_text(text)
    code, _, _ = calibrate(cli, "photos", "--expect", "1", "--report", "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert code == 0 and "&lt;script&gt;" in page and "<script>" not in page
    code, _, _ = calibrate(cli, "photos", "--expect", "1", "--report", "report.png")
    assert code == 0 and (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_images_that_no_label_fits(cli, tmp_path):
    code, out, _ = calibrate(cli, "others", "--negatives", "--threshold", "fpr=0.1")
    assert code == 0 and "24 images, 24 labels, none of which fits" in out
    made = Calibration.load(tmp_path / "c.json")
    assert made.method == "none" and made.scale == 1 and not made.bias.any()
    got = told(cli, "score", "others", *MODEL, "--calibration", "c.json", "--threshold", "fpr=0.1")
    hits = sum(len(image["scores"]) for image in got["images"])
    assert 0 < hits <= 0.1 * COUNT * COUNT


def test_score_with_it(cli, tmp_path, monkeypatch, data):
    assert calibrate(cli, "labelled.csv", "--threshold", "f1")[0] == 0
    made = Calibration.load(tmp_path / "c.json")
    raw = told(cli, "score", "photos", *MODEL, "--labels-file", "labels.txt")
    # Labels are its own where none are given.
    got = told(cli, "score", "photos", *MODEL, "--calibration", "c.json")
    assert got["calibration"] == {"file": "c.json", "method": "platt"}
    for before, after in zip(raw["images"], got["images"], strict=True):
        assert [h["label"] for h in before["scores"]] == [h["label"] for h in after["scores"]]
        logits = np.array([h["logit"] for h in after["scores"]])
        p = 1 / (1 + np.exp(-(made.scale * logits + made.bias[0])))
        np.testing.assert_allclose([h["probability"] for h in after["scores"]], p, rtol=1e-5)
    argv = ("score", "photos", *MODEL, "--calibration", "c.json", "--threshold")
    for rule, limit in (("f1", made.thresholds[0]), ("0.97", 0.97)):
        kept = told(cli, *argv, rule)["images"]
        for image, whole in zip(kept, got["images"], strict=True):
            assert image["scores"] == [h for h in whole["scores"] if h["probability"] >= limit]
    assert any(not image["scores"] for image in kept) and any(i["scores"] for i in kept)
    none = next(image["image"] for image in kept if not image["scores"])
    _, out, _ = cli(*argv, "0.97")
    assert f"{none}\t\t\t" in out.splitlines()
    _, shown = on_a_terminal(monkeypatch, *argv, "0.97")
    assert "none of these" in shown
    # A plain number needs no calibration.
    plain = told(cli, "score", none, *MODEL, "--labels", *data[:3], "--threshold", "0.9")
    assert plain["threshold"] == 0.9 and "calibration" not in plain


def test_a_job_with_it(cli, tmp_path):
    calibrate(cli, "labelled.csv", "--threshold", "f1")
    single = told(cli, "score", "photos", *MODEL, "--calibration", "c.json", "--threshold", "f1")
    whole = told(cli, "score", "photos", *MODEL, "--calibration", "c.json")
    argv = ("score", "photos", *MODEL, "--calibration", "c.json", "--threshold", "f1")
    assert cli(*argv, "--out", "all")[0] == cli(*argv, "--out", "best", "--top", "3")[0] == 0
    every = pq.read_table(tmp_path / "all" / "data").to_pylist()
    best = pq.read_table(tmp_path / "best" / "data").to_pylist()
    for row, few, image, scores in zip(every, best, single["images"], whole["images"], strict=True):
        accepted = [hit["label"] for hit in image["scores"]]
        assert row["accepted"] == accepted and few["accepted"] == accepted[:3]
        expected = sorted((h["probability"] for h in scores["scores"]), reverse=True)
        np.testing.assert_allclose(sorted(row["probabilities"])[::-1], expected, rtol=1e-4)
        np.testing.assert_allclose(few["probabilities"], expected[:3], rtol=1e-4)
    code, out, _ = cli(*argv, "--out", "all")
    assert code == 0 and "already" in out
    # Another calibration is another job.
    calibrate(cli, "photos", "--expect", "1", out="other.json")
    code, _, err = cli("score", "photos", *MODEL, "--calibration", "other.json", "--out", "all")
    assert code == 2 and "holds another job" in err[-1]


def test_search_with_it(cli, tmp_path, data):
    calibrate(cli, "labelled.csv", "--threshold", "f1")
    made = Calibration.load(tmp_path / "c.json")
    assert cli("embed", "photos", *MODEL, "--out", "index")[0] == 0
    (found,) = told(cli, "search", "index", data[3], "--calibration", "c.json")["queries"]
    for hit in found["hits"]:
        p = 1 / (1 + np.exp(-(made.scale * hit["logit"] + made.bias[3])))
        assert hit["probability"] == pytest.approx(p, rel=1e-5)
    code, out, err = cli(
        "search", "index", data[3], "--calibration", "c.json", "--threshold", "f1", "--json"
    )
    kept = json.loads(out)["queries"][0]["hits"]
    assert kept == [h for h in found["hits"] if h["probability"] >= made.thresholds[3]]
    assert code == 0 and kept and "nearest are below --threshold f1 and left out" in err[0]
    code, _, (said,) = cli("search", "index", "a dog", "--calibration", "c.json")
    assert code == 2
    assert "c.json: 'a dog' is none of the 24 labels that it was fitted to" in said
    code, _, (said,) = cli("search", "index", data[3], "--calibration", "c.json", "--not", data[2])
    assert code == 2 and "--calibration: a search with --not ranks by similarities" in said


def refused(cli, said, *argv):
    code, out, err = cli(*argv)
    errors = [line for line in err if "error" in line]
    assert (code, out, len(errors)) == (2, "", 1), err
    assert said in errors[0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("photos",), "images without labels need --expect N: how many labels fit one"),
        (("nowhere.csv", "--expect", "1"), "nowhere.csv"),
        (("photos", "--expect", "30"), "--expect 30: not all labels fit every image, and"),
        (("photos", "--expect", "-3"), "how many labels fit an image, above 0, such as 1 or 2.5"),
        (("photos", "--expect", "some"), "such as 1 or 2.5, got 'some'"),
        (("photos", "--expect", "1", "--threshold", "f1"), "the method expect reads no labels"),
        (("photos", "--expect", "1", "--method", "platt"), "--expect is for the method expect"),
        (("photos", "--negatives"), "--negatives needs a --threshold, such as fpr=0.01"),
        (("photos", "--negatives", "--expect", "1"), "give thresholds only; leave out --expect"),
        (("photos", "--negatives", "--threshold", "f1"), "at least 2 positive examples"),
        (("photos", "--negatives", "--threshold", "fpr=0.0001"), "at least 9,999 negative"),
        (("labelled.csv", "--method", "none"), "--method none fits nothing"),
        (("labelled.csv", "--per-label"), "--per-label is for --method bias"),
        (("labelled.csv", "--threshold", "g1"), "threshold g1: expected f1"),
        (("labelled.csv", "--threshold", "precision=0.99"), "at least 299 positive examples"),
        (("labelled.csv", "--method", "isotonic"), "needs 300 positive and 300 negative"),
        (("labelled.csv", "--report", "r.pdf"), "--report: expected a name that ends in .html"),
        (("labelled.csv", "--report", "no/r.png"), "--report: the folder no does not exist"),
        (("labelled.csv", "--method", "bias", "--per-label"), "no image but in the part that"),
    ],
)
def test_bad_input(cli, tmp_path, argv, said):
    refused(
        *(cli, said, "calibrate", *argv, *MODEL, "--labels-file", "labels.txt", "--out", "c.json")
    )
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("labels", "rows", "said"),
    [
        # An empty class, where each label has a bias of its own.
        (lambda own: [*own, "a ghost"], slice(None), "1 of 25 labels has no image, such as 'a gho"),
        # A label of an image that is none of the list.
        (lambda own: own[1:], slice(None), "1 label of the images is none of the 23 to calibrate"),
        (lambda own: own, slice(2), "there is one positive example, of"),
    ],
)
def test_labels_that_do_not_fit(cli, tmp_path, data, labels, rows, said):
    (tmp_path / "labels.txt").write_text("\n".join(labels(data)))
    lines = (tmp_path / "labelled.csv").read_text().splitlines(True)
    (tmp_path / "labelled.csv").write_text("".join(lines[rows]))
    argv = ("--method", "bias", "--per-label") if rows == slice(None) else ()
    refused(
        *(cli, said, "calibrate", "labelled.csv", *MODEL, "--labels-file", "labels.txt"),
        *("--out", "c.json", *argv),
    )


def test_what_is_of_another_is_refused(cli, tmp_path, data):
    calibrate(cli, "photos", "--expect", "1")
    score = ("score", "photos", *MODEL, "--calibration", "c.json")
    refused(cli, "c.json: the calibration is of other labels", *score, "--labels", "a", "b")
    refused(
        *(cli, "c.json: the calibration is of other labels: the same in another order"),
        *(*score, "--labels", *data[::-1]),
    )
    refused(cli, "c.json: the calibration is of other templates", *score, "--template", "a {}")
    refused(cli, "another preprocessing: its profile image.", *score, "--exif")
    refused(cli, "the calibration has none; give a number", *score, "--threshold", "f1")
    refused(cli, "from 0 to 1, got '2'", *score, "--threshold", "2")
    text = (tmp_path / "c.json").read_text()
    (tmp_path / "c.json").write_text(text.replace("tensors-sha256:", "tensors-sha256:0"))
    for argv in (score, (*score, "--out", "job")):
        refused(cli, "here is another model: its weights differ", *argv)
    assert not (tmp_path / "job" / "manifest.json").exists()
    refused(
        *(cli, "give it as --calibration FILE", "score", "photos", *MODEL, "--labels", "a"),
        *("--threshold", "f1"),
    )
