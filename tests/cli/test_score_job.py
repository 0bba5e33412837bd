"""`siglip-jax score --out FOLDER`."""

import json

import command_line
import duckdb
import numpy as np
import pytest
import shapes
from job_inputs import table

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings, compiled_once = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
    shapes.compiled_once,
)
pytestmark = pytest.mark.usefixtures("compiled_once", "surroundings")


def test_the_same_numbers_as_the_table(cli, model, pictures, tmp_path):
    argv = ("score", pictures, "--model", model, "--template", "a {}", "--top", "2")
    labels = ("--labels", "cat", "dog", "red")
    code, out, err = cli(*argv, "--out", "s", *labels)
    assert (code, err) == (0, []) and out.startswith("s: 3 items in 1 shard; ")
    _, told, _ = cli(*argv, "--json", *labels)
    images = json.loads(told)["images"]
    rows = table(tmp_path / "s").to_pylist()
    for row, image in zip(rows, images, strict=True):
        assert image["image"].endswith(row["key"])
        assert row["labels"] == [hit["label"] for hit in image["scores"]]
        for name in ("logit", "probability"):
            expected = [hit[name] for hit in image["scores"]]
            np.testing.assert_allclose(
                row[name[:-1] + "ies" if name[-1] == "y" else "logits"], expected, rtol=1e-5
            )
    best = duckdb.sql(f"select key, labels[1], logits[1] from '{tmp_path}/s/data/*.parquet'")
    assert best.fetchall() == [(r["key"], r["labels"][0], r["logits"][0]) for r in rows]


def test_pairs(cli, model, pictures, tmp_path):
    (pictures / "pairs.csv").write_text("image,caption\nb.png,a cat\na.PNG,a dog\n")
    code, _, err = cli("score", pictures / "pairs.csv", "--model", model, "--pairs", "--out", "p")
    assert (code, err) == (0, [])
    rows = table(tmp_path / "p").to_pylist()
    assert [row["text"] for row in rows] == ["a cat", "a dog"]
    _, told, _ = cli(
        *("score", pictures / "b.png", "--model", model, "--json", "--labels", "a cat")
    )
    (hit,) = json.loads(told)["images"][0]["scores"]
    assert rows[0]["logit"] == pytest.approx(hit["logit"], rel=1e-5)
    assert rows[0]["probability"] == pytest.approx(hit["probability"], rel=1e-4)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--out s", "there is no label; give --labels, --labels-file or --pairs"),
        ("--pairs", "--pairs is for bulk jobs; give a folder as --out"),
        ("--shared --labels cat", "--shared is for bulk jobs; give a folder as --out, or leave"),
        ("--out s --pairs --labels cat", "labels are for scoring images; leave them out"),
        ("--out s --top 3 --labels cat", "--top 3 is more than the 1 labels"),
        ("--out s --labels cat --template dog", "template 'dog' must hold {} once"),
    ],
)
def test_refused(cli, model, pictures, tmp_path, argv, said):
    code, out, err = cli("score", pictures, "--model", model, *argv.split())
    assert (code, out, len(err)) == (2, "", 1) and said in err[0]
    assert not (tmp_path / "s").exists()


def test_too_many_labels_to_store_all(cli, pictures, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(4097))))
    code, _, err = cli(
        "score", pictures, "--model", "m", "--labels-file", "labels.txt", "--out", "s"
    )
    assert code == 2 and err == [
        "siglip-jax: error: 4,097 labels are as many numbers an image, more than 4,096; "
        "give --top K to store the best of them only"
    ]
