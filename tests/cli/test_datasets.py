"""One dataset in every command: whatever one of them reads, all of them read, and from anywhere."""

import io
import json
import tarfile

import fsspec
import pytest
import shapes
from job_inputs import table

pytestmark = [
    pytest.mark.usefixtures("compiled_once", "surroundings"),
    pytest.mark.filterwarnings("ignore:.* texts are longer"),
]
NAMES = [f"{colour} circle" for colour in shapes.COLOURS]


def encoded(name, form):
    file = io.BytesIO()
    shapes.draw(*name.split()).convert("RGB").save(file, form)
    return file.getvalue()


@pytest.fixture
def files(tmp_path):
    """A tar of .gif and .bmp with `text` in a .json, and the same as a folder and a table."""
    folder = tmp_path / "files"
    (folder / "images").mkdir(parents=True)
    rows = ["image\ttext"]
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, name in enumerate(NAMES):
            form = ("GIF", "BMP")[number % 2]
            members = {
                form.lower(): encoded(name, form),
                "json": json.dumps({"text": name}).encode(),
            }
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                (folder / "images" / member.name).write_bytes(content)
            rows.append(f"images/{number}.{form.lower()}\t{name}")
    (folder / "table.tsv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def bucket(files):
    fs = fsspec.filesystem("memory")
    fs.put(str(files), "/bucket", recursive=True)
    yield "memory://bucket"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def recipe(folder, data, spec, **changes):
    tables = shapes.recipe(data, steps=1, batch=8, optimizer={"lr": 1e-3}, **changes)
    tables["data"] = {"train": spec}
    (folder / "recipe.toml").write_text(shapes.toml(tables))
    return folder / "recipe.toml"


@pytest.mark.parametrize("remote", [False, True], ids=["here", "bucket"])
@pytest.mark.parametrize("spec", ["a.tar", "images", "table.tsv"])
def test_what_embed_reads_score_evaluate_and_train_read(
    cli, model, files, bucket, data, tmp_path, spec, remote
):
    spec = f"{bucket if remote else files}/{spec}"
    code, _, err = cli("embed", spec, "--model", model, "--out", "z")
    assert (code, err) == (0, [])
    embedded = table(tmp_path / "z")
    code, _, err = cli("score", spec, "--pairs", "--model", model, "--out", "p")
    assert (code, err) == (0, [])
    scored = table(tmp_path / "p")
    assert scored["key"].to_pylist() == embedded["key"].to_pylist()
    assert scored["text"].to_pylist() == NAMES
    argv = ("evaluate", spec, "--task", "retrieval", "--model", model, "--json")
    code, out, err = cli(*argv)
    assert (code, err) == (0, []) and json.loads(out)["texts"] == len(NAMES)
    code, out, err = cli("train", recipe(tmp_path, data, spec), "--out", "run")
    assert code == 0 and out.startswith("1 step; the model is run"), err


def test_train_and_evaluate_name_a_missing_file_by_its_whole_url(
    cli, model, bucket, data, tmp_path
):
    for spec, problem in (
        (f"{bucket}/b.tar", "no such file or folder; did you mean memory://bucket/a.tar?"),
        (f"{bucket}/c/*.tar", "no file matches this pattern"),
    ):
        expected = ["siglip-jax: error: " + f"{spec}: {problem}"]
        argv = ("evaluate", spec, "--task", "retrieval", "--model", model)
        assert cli(*argv) == (2, "", expected)
        assert cli("train", recipe(tmp_path, data, spec), "--out", "run") == (2, "", expected)
        assert cli("embed", spec, "--model", model, "--out", "z") == (2, "", expected)
        held_out = recipe(tmp_path, data, f"{bucket}/a.tar", evaluate={"data": spec})
        assert cli("train", held_out, "--out", "run") == (2, "", expected)


def test_columns_are_named_by_one_option_everywhere(cli, model, files, data, tmp_path):
    spec = str(files / "table.tsv")
    options = ("--model", model, "--text-column", "txt")
    line = (
        "siglip-jax: error: table.tsv: no column txt; the columns are image, text; "
        "did you mean --text-column text?"
    )
    for argv in (
        ("evaluate", spec, "--task", "retrieval"),
        ("score", spec, "--pairs", "--out", "p"),
        ("embed", spec, "--out", "t"),
    ):
        assert cli(*argv, *options) == (2, "", [line])
    argv = ("evaluate", spec, "--task", "retrieval", "--model", model, "--caption-column", "text")
    code, _, err = cli(*argv)
    assert (code, err) == (
        0,
        ["siglip-jax: --caption-column is called --text-column now"],
    )
    # In a recipe there is no such option, but a key.
    path = recipe(tmp_path, data, spec)
    code, _, err = cli("train", path, "--out", "run", "--set", "data.text_column=txt")
    assert code == 2 and err[0].endswith("did you mean text_column='text'?")


def test_a_compressed_tar_says_what_to_do(cli, model, files, tmp_path):
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(files / "images" / "0.gif", "0.gif")
    assert cli("evaluate", packed, "--task", "retrieval", "--model", model) == (
        2,
        "",
        [
            f"siglip-jax: error: {packed}: a compressed tar has no random access; decompress it "
            "(images do not get smaller by it)"
        ],
    )
    assert cli("embed", packed, "--model", model, "--out", "z")[0] == 0
