"""`siglip-jax embed` into a folder."""

import json
import tarfile

import command_line
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapes
from job_inputs import contents, table
from pictures import encoded, scene
from PIL import Image

from siglip_jax.jobs import open_features

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings, compiled_once = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
    shapes.compiled_once,
)
pytestmark = pytest.mark.usefixtures("compiled_once", "surroundings")


def test_a_folder_of_pictures(cli, model, pictures, tmp_path):
    code, out, err = cli("embed", pictures, "--model", model, "--out", "z", "--shard-size", "2")
    assert (code, err) == (0, [])
    assert out.startswith("z: 3 items in 2 shards; ") and out.endswith("is the bottleneck\n")
    rows = table(tmp_path / "z")
    assert rows.column("key").to_pylist() == ["a.PNG", "b.png", "sub/c.png"]
    before = contents(tmp_path / "z")
    argv = ("embed", pictures, "--model", model, "--out", "z", "--shard-size", "2")
    code, out, err = cli(*argv)
    assert (code, err) == (0, [])
    assert out == "z is finished already: 3 items in 2 shards; nothing to do\n"
    code, out, err = cli(*argv, "--json")
    told = json.loads(out)
    assert code == 0 and told["folder"] == "z" and told["finished"] and told["items"] == 3
    code, _, err = cli(*argv, "--store", "float16")
    assert code == 2 and err == [
        "siglip-jax: error: z holds another job: job.store is 'float32' there and 'float16' here; "
        "choose another folder, or what it began with"
    ]
    assert contents(tmp_path / "z") == before


def test_processes_that_decode(cli, model, pictures, tmp_path):
    for count in ("0", "2"):
        argv = ("embed", pictures, "--model", model, "--out", count)
        assert cli(*argv, "--decode-processes", count)[0] == 0
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    code, _, err = cli(*argv, "--decode-processes", "-1")
    assert code == 2 and "expected a whole number of at least 0, got '-1'" in err[-1]


def test_texts(cli, model, tmp_path):
    argv = ("embed", "--model", model, "--texts", "a cat", "a dog")
    assert cli(*argv, "--out", "z")[0] == 0 and cli(*argv, "--out", "z.npz")[0] == 0
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    assert cli("embed", "--model", model, "--texts-file", "texts.txt", "--out", "y")[0] == 0
    (tmp_path / "texts.csv").write_text("id,words\n1,a cat\n2,a dog\n")
    code, _, err = cli(
        *("embed", "texts.csv", "--text-column", "words", "--key-column", "id"),
        *("--model", model, "--out", "x"),
    )
    assert (code, err) == (0, [])
    with np.load("z.npz") as z:
        for name in "zyx":
            got = np.array(table(tmp_path / name).column("embedding").to_pylist())
            np.testing.assert_allclose(got, z["ztxt"], rtol=0, atol=1e-6)
    assert table(tmp_path / "x").column("key").to_pylist() == ["1", "2"]


def test_pictures_that_are_none(cli, model, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    jpeg = encoded(Image.fromarray(scene(40, 50)), "JPEG")
    for name, data in (("a.jpg", jpeg), ("b.jpg", b"hello"), ("c.jpg", jpeg[:700])):
        (folder / name).write_bytes(data)
    code, out, err = cli("embed", folder, "--model", model, "--out", "z")
    assert (code, err) == (
        2,
        ["siglip-jax: 2 items are in error; --retry-all tries their shards again"],
    )
    assert "3 items in 1 shard, 2 of which could not be read (b.jpg: not an image in a" in out
    assert cli("embed", folder, "--model", model, "--out", "z", "--max-error-share", "0.7")[0] == 0
    for i in range(20):
        (folder / f"x{i}.jpg").write_bytes(b"hello")
    code, out, err = cli("embed", folder, "--model", model, "--out", "y")
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(
        "siglip-jax: error: 10 of 11 items (90.9%) cannot be read, more than the share"
    )
    assert err[0].endswith("what is finished is kept, and a larger --max-error-share allows more")
    code, _, err = cli("embed", folder, "--model", model, "--out", "z", "--error-share", "1")
    assert (code, err[0]) == (2, "siglip-jax: --error-share is called --max-error-share now")
    assert "holds another job: the data have changed" in err[1]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("empty --out z", "empty"),
        ("gone.jpg --out z", "gone.jpg"),
        ("--out z", "give one of SOURCE, --texts and --texts-file"),
        ("empty --texts a --out z", "give one of SOURCE, --texts and --texts-file"),
        ("empty --out z --force", "--force is for FILE.npz; a job in a folder goes on with"),
        ("empty --out z --store bfloat16", "eight times as exact; leave out --store bfloat16"),
        ("empty --out z --features -2", "expected pooled, encoded or blocks=N, got '-2'"),
        ("--texts a --out z --features encoded", "only images have patches; texts are embedded"),
        ("empty --out z --formt npy", "there is no option --formt; did you mean --format?"),
        ("empty --out z.npz --format npy", "--format is for bulk jobs; give a folder as --out"),
        ("empty --out z.npz --shard-size 9", "--shard-size is for bulk jobs; give a folder as"),
        ("empty --out z.npz --decode-processes 2", "--decode-processes is for bulk jobs; give"),
        (
            "empty --out z --max-error-share 2",
            "--max-error-share: expected a share from 0 to 1",
        ),
        ("--texts a --model siglip2_b16_265 --out z", "did you mean"),
    ],
)
def test_refused(cli, model, tmp_path, argv, said):
    (tmp_path / "empty").mkdir()
    rest = () if "--model" in argv else ("--model", model)
    code, out, err = cli("embed", *argv.split(), *rest)
    assert (code, out) == (2, "") and said in err[-1], err
    assert not (tmp_path / "z" / "manifest.json").exists()


def test_readers(cli, model, pictures, tmp_path):
    (pictures / "bad.png").write_text("hello")
    argv = ("embed", pictures, "--model", model, "--shard-size", "2", "--max-error-share", "1")
    for store in ("float32", "float16"):
        assert cli(*argv, "--store", store, "--out", store)[0] == 0
        rows = table(tmp_path / store)
        assert rows.column("key").to_pylist() == ["a.PNG", "b.png", "bad.png", "sub/c.png"]
        bad = [False, False, True, False]
        z = [
            None if row is None else [float(x) for x in row]
            for row in rows.column("embedding").to_pylist()
        ]
        frame = rows.to_pandas()
        assert frame["embedding"].isna().tolist() == bad
        np.testing.assert_array_equal(frame["embedding"][0], np.array(z[0]))
        files = f"{tmp_path}/{store}/data/*.parquet"
        found = duckdb.sql(f"select key, embedding, error from '{files}' order by key").fetchall()
        assert [row[0] for row in found] == rows.column("key").to_pylist()
        assert [row[1] is None for row in found] == bad == [row[2] is not None for row in found]
        np.testing.assert_array_equal([float(x) for x in found[3][1]], z[3])


def test_features(cli, model, pictures, tmp_path):
    """As the commands of users, and as DuckDB reads what they wrote."""
    argv = ("embed", pictures, "--model", model, "--features")
    assert cli(*argv, "pooled", "--out", "z")[0] == 0
    assert cli("embed", pictures, "--model", model, "--out", "y")[0] == 0
    assert contents(tmp_path / "z") == contents(tmp_path / "y")
    assert cli(*argv, "blocks=-2", "--store", "float16", "--out", "p")[0] == 0
    features = open_features(tmp_path / "p")
    found = duckdb.sql(f"select key, features from '{tmp_path}/p/data/*.parquet' order by key")
    for index, (key, values) in enumerate(found.fetchall()):
        assert key == features.keys[index]
        np.testing.assert_array_equal(np.array(values, np.float16), features[index])


def test_hugging_face_datasets(cli, model, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    for store in ("float32", "float16"):
        argv = ("embed", pictures, "--model", model, "--shard-size", "2", "--store", store)
        assert cli(*argv, "--out", store)[0] == 0
        files = sorted(map(str, (tmp_path / store / "data").iterdir()))
        loaded = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / f"cache-{store}"))
        expected = table(tmp_path / store).column("embedding").to_pylist()
        assert loaded["key"][:] == ["a.PNG", "b.png", "sub/c.png"]
        np.testing.assert_array_equal(np.array(loaded["embedding"][:]), np.array(expected))
        assert pq.read_schema(files[0]).names == loaded.column_names


@pytest.mark.filterwarnings("default")
def test_what_is_left_out_of_a_folder_is_said(cli, model, pictures, tmp_path):
    (pictures / "notes.txt").write_text("not an image, and not named like one")
    (pictures / "._a.PNG").write_bytes(bytes(200))
    said = f"siglip-jax: warning: {pictures}: what is no image is left out: 1 .txt, 1 hidden"
    code, out, err = cli("embed", pictures, "--model", model, "--out", "z")
    assert (code, err) == (0, [said]) and out.startswith("z: 3 items in 1 shard")
    code, _, err = cli("score", pictures, "--model", model, "--labels", "a cat")
    assert (code, err) == (0, [said])


def test_texts_of_a_file_as_a_source(cli, model, tmp_path):
    """What the error about a list of texts advises."""
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    code, _, err = cli("embed", "texts.txt", "--model", model, "--out", "z")
    assert code == 2 and err[0].endswith("(for texts to embed: texts:texts.txt)")
    code, _, err = cli("embed", "texts:texts.txt", "--model", model, "--out", "z")
    assert (code, err) == (0, []) and table(tmp_path / "z").column("text")[1].as_py() == "a dog"


def test_an_empty_archive_is_no_success(cli, model, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    code, out, err = cli("embed", "a.tar", "--model", model, "--out", "z")
    assert (code, err) == (2, [])
    assert out.startswith("z: 0 items in 1 shard: there is none in the source")


def test_a_bulk_job_has_no_default_model(cli, pictures):
    for argv in (("embed", pictures), ("score", pictures, "--labels", "a cat")):
        code, _, err = cli(*argv, "--out", "z")
        assert code == 2 and len(err) == 1 and "--model is missing: a bulk job has no" in err[0]


@pytest.mark.parametrize("option", ["--retry", "--update"])
def test_what_is_for_one_process_is_said_of_the_option(cli, model, pictures, option):
    code, out, err = cli("embed", pictures, "--model", model, "--out", "z", "--shared", option)
    said = f"several processes share the folder; {option} is for one process alone"
    assert (code, out) == (2, "") and err[-1] == f"siglip-jax: error: {said}"
