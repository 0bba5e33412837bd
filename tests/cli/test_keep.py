"""`--keep` of embed and score, and what search says of it."""

import json

import command_line
import pytest
import shapes

from siglip_jax.jobs import read_manifest

cli, model, pictures, surroundings, compiled_once = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
    shapes.compiled_once,
)
pytestmark = pytest.mark.usefixtures("surroundings", "compiled_once")


@pytest.fixture
def table(pictures, tmp_path):
    lines = [{"image": str(pictures / name), "url": f"http://{name}", "n": [1, None]}
             for name in ("a.PNG", "b.png")]  # fmt: skip
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_search_says_what_was_kept(cli, model, table, tmp_path):
    argv = ("embed", table, "--model", model, "--out", "z", "--keep", "url, n")
    assert cli(*argv)[0] == 0
    assert read_manifest(tmp_path / "z").job["keep"] == {"url": "string", "n": "string"}
    code, _, err = cli(*argv[:-1], "url")
    assert (code, len(err)) == (2, 1)
    assert "of the source's columns it keeps url, n there and url here; choose another" in err[0]
    code, out, _ = cli("search", "z", "a dog", "--model", model, "--json")
    hits = json.loads(out)["queries"][0]["hits"]
    assert code == 0 and len(hits) == 2
    for hit in hits:
        name = hit["key"].rpartition("/")[2]
        assert hit["kept"] == {"url": f"http://{name}", "n": "[1, null]"}
    _, out, _ = cli("search", "z", "--duplicates", "0.0001", "--model", model, "--json")
    groups = json.loads(out)["groups"]
    assert all("kept" in hit for group in groups for hit in group)
    # Nothing of it where nothing was kept.
    assert cli("embed", table, "--model", model, "--out", "y")[0] == 0
    hits = json.loads(cli("search", "y", "a dog", "--model", model, "--json")[1])["queries"][0]
    assert not any("kept" in hit for hit in hits["hits"])
    score = ("score", table, "--model", model, "--out", "s", "--labels", "a", "--keep", "url")
    assert cli(*score)[0] == 0 and read_manifest(tmp_path / "s").job["keep"] == {"url": "string"}


def test_values_of_every_type_are_json():
    import datetime
    import decimal

    from siglip_jax.cli.search_output import _json

    day = datetime.date(2020, 1, 2)
    values = {"a": [day, b"ab"], "b": (1, None, True), "c": decimal.Decimal("0.5")}
    assert _json(values) == {"a": ["2020-01-02", "YWI="], "b": [1, None, True], "c": "0.5"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("t.jsonl", "--keep", "ulr", "--out", "z"), "no column ulr; the columns are image, url, "
         "n; did you mean --keep url?"),
        (("t.jsonl", "--keep", "url,", "--out", "z"), "expected names between commas, got 'url,'"),
        (("t.jsonl", "--keep", "url,url", "--out", "z"), "named twice; name it once in --keep"),
        (("pictures", "--keep", "url", "--out", "z"), "images have no columns, which Parquet, "),
        (("--texts", "a", "--keep", "url", "--out", "z"), "--texts: texts alone have no columns"),
        (("pictures", "--keep", "url", "--out", "z.npz"), "--keep is for bulk jobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept(cli, model, table, pictures, tmp_path, argv, message):
    argv = [str(pictures) if word == "pictures" else word for word in argv]
    code, out, err = cli("embed", "--model", model, *argv)
    assert (code, out) == (2, "")
    assert message in " ".join(err)
    assert not (tmp_path / "z").exists()
