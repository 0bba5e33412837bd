"""An index brought up to date with its source: equal to one that is made anew."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_inputs import Told, contents, picture, pictures, table
from pair_files import write_tar
from saved_model import saved
from tolerances import EMBEDDING

import siglip_jax
from siglip_jax.data.tables import TextStrings
from siglip_jax.jobs import embed, read_manifest, score
from siglip_jax.jobs.durable import sha256
from siglip_jax.search import open_embeddings, search
from siglip_jax.search.embeddings import Row
from siglip_jax.search.pictures import pictures_of

pytestmark = [
    pytest.mark.usefixtures("compiled_once"),
    pytest.mark.filterwarnings("ignore:.*what is no image is left out"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


def folder_of(path, seeds):
    """A folder with a picture a number, of that seed."""
    path.mkdir(exist_ok=True)
    for name, seed in seeds.items():
        (path / name).write_bytes(picture(seed))
    return path


def rows_of(out, column="embedding"):
    """Key to embedding, by what is in the files; each key once."""
    rows = table(out)
    keys = rows.column("key").to_pylist()
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows.column(column).to_pylist(), strict=True))


def equal_to_anew(source, out, anew, model, **options):
    """Whether an updated index is what a job on the same source writes into a new folder."""
    embed(source, anew, model=model, max_error_share=1, **options)
    ours, fresh = rows_of(out), rows_of(anew)
    assert ours.keys() == fresh.keys()
    for key, row in ours.items():
        assert (row is None) == (fresh[key] is None), key
        if row is not None:
            np.testing.assert_allclose(row, fresh[key], rtol=0, atol=EMBEDDING)
    entries = [json.loads(p.read_text()) for p in (out / "ledger").glob("*.json")]
    assert sum(entry["rows"] for entry in entries) == len(ours)
    assert read_manifest(out).source["shards"] == len(entries)
    files = {file["path"] for entry in entries for file in entry["files"]}
    assert files == {str(p.relative_to(out)) for p in (out / "data").iterdir()}
    assert read_manifest(out).source["identity"] == read_manifest(anew).source["identity"]


def test_a_folder(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(9)})
    options = {"model": model, "shard_size": 4, "update": True}
    out = tmp_path / "out"
    # The first time it is a job as any other.
    assert embed(str(photos), out, **options).run["items"] == 9
    same = embed(str(photos), out, **options)
    assert same.already and same.sentence().endswith(
        "is up to date: 9 items in 3 shards; nothing to do"
    )
    folder_of(photos, {"00.png": 20, "x.png": 21, "3.png": 22})
    (photos / "5.png").unlink()
    (photos / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"the data have changed.* embed what is new with update$"):
        embed(str(photos), out, **options | {"update": False})
    result = embed(str(photos), out, **options | {"max_error_share": 0.5})
    assert (result.run["items"], result.removed, result.items, result.errors) == (4, 2, 11, 1)
    assert "; updated: 4 embedded, 2 rows taken out" in result.sentence()
    equal_to_anew(str(photos), out, tmp_path / "anew", model, shard_size=4)
    # What cannot be read, and has not changed, is left as it is.
    assert embed(str(photos), out, **options | {"max_error_share": 0.5}).already
    # The same command without the option goes on, too, now that the source is the same.
    assert embed(str(photos), out, **options | {"update": False, "max_error_share": 0.5}).already


def test_search_finds_what_is_new_and_not_what_went(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(5)})
    embed(str(photos), tmp_path / "out", model=model, shard_size=2)
    folder_of(photos, {"0new.png": 30})
    (photos / "1.png").unlink()
    embed(str(photos), tmp_path / "out", model=model, shard_size=2, update=True)
    embeddings = open_embeddings(tmp_path / "out")
    for name, seed, there in (("0new.png", 30, True), ("1.png", 1, False)):
        query = model.scorer(tokenizer=False).embed_images([picture(seed)])
        ((hit,),) = search(embeddings, query, 1)
        assert (hit.row.key == name) == there and (hit.similarity > 0.9999) == there
    found = pictures_of(embeddings, [Row("0new.png", None, 0, 3), Row("4.png", None, 0, 2)])
    assert sorted(found.values()) == [str(photos / "0new.png"), str(photos / "4.png")]


def test_a_replaced_file_of_the_same_size_and_time(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {})
    for n in range(3):
        (photos / f"{n}.bmp").write_bytes(bitmap(n))
    before = (photos / "1.bmp").stat()
    embed(str(photos), tmp_path / "out", model=model)
    (photos / "1.bmp").write_bytes(bitmap(9))
    os.utime(photos / "1.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (photos / "1.bmp").stat().st_size == before.st_size
    with pytest.raises(ValueError, match=r"1 of what is done have other contents now \(1\.bmp\)"):
        embed(str(photos), tmp_path / "out", model=model)
    result = embed(str(photos), tmp_path / "out", model=model, update=True)
    assert (result.run["items"], result.removed) == (1, 1)
    equal_to_anew(str(photos), tmp_path / "out", tmp_path / "anew", model)


def bitmap(seed):
    import io

    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def test_files_that_were_only_copied_are_the_same(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(5)})
    embed(str(photos), tmp_path / "out", model=model, shard_size=2)
    (tmp_path / "out/ledger/00002.json").unlink()
    for path in photos.iterdir():
        os.utime(path, (1, 1))
    assert embed(str(photos), tmp_path / "out", model=model, shard_size=2).run["items"] == 1
    for path in photos.iterdir():
        os.utime(path, (2, 2))
    assert embed(str(photos), tmp_path / "out", model=model, shard_size=2, update=True).already


def test_lists_tables_and_texts(model, tmp_path, monkeypatch):
    folder_of(tmp_path / "p", {f"{n}.png": n for n in range(6)})
    monkeypatch.chdir(tmp_path)
    kinds = {"l.txt": "", "t.csv": "image\n", "c.jsonl": None}
    for step, numbers in enumerate(([0, 1, 2, 3], [5, 1, 3, 4, 2], [5])):
        for name, head in kinds.items():
            lines = [f"p/{n}.png" for n in numbers]
            if head is None:
                lines = [json.dumps({"image": line, "key": f"k{line}"}) for line in lines]
            (tmp_path / name).write_text((head or "") + "\n".join(lines) + "\n")
            options = {"shard_size": 3}
            embed(name, f"out-{name}", model=model, update=True, **options)
            equal_to_anew(
                name, tmp_path / f"out-{name}", tmp_path / f"{step}{name}", model, **options
            )
    for step, texts in enumerate((["a dog", "a cat"], ["a bird", "a cat", "a cow"])):
        (tmp_path / "w.txt").write_text("\n".join(texts))
        for number, source in enumerate((TextStrings(texts, 2), "texts:w.txt")):
            out = tmp_path / f"texts{number}"
            embed(source, out, model=model, what="texts", update=True)
            anew = tmp_path / f"anew{step}{number}"
            equal_to_anew(source, out, anew, model, what="texts")
            assert rows_of(out, "text") == rows_of(anew, "text")


def test_archives_change_as_a_whole(model, tmp_path):
    tars, rows = tmp_path / "tars", tmp_path / "rows"
    tars.mkdir()
    rows.mkdir()

    def write(name, seeds):
        write_tar(tars / f"{name}.tar", [(f"{seed}.png", picture(seed)) for seed in seeds])
        data = {"image": [picture(seed) for seed in seeds]}
        pq.write_table(pa.table(data), rows / f"{name}.parquet")

    for name, seeds in (("a", [1, 2]), ("b", [3, 4, 5]), ("c", [6])):
        write(name, seeds)
    for source in (tars, rows):
        embed(str(source), tmp_path / f"out-{source.name}", model=model)
    write("b", [3, 4, 7])
    write("d", [8, 9])
    for source, ending in ((tars, "tar"), (rows, "parquet")):
        (source / f"c.{ending}").unlink()
        out = tmp_path / f"out-{source.name}"
        result = embed(str(source), out, model=model, update=True)
        assert (result.run["items"], result.removed) == (5, 4)
        equal_to_anew(str(source), out, tmp_path / f"anew-{source.name}", model)
    # Kinds together, one of them grown.
    both = [str(tars), str(folder_of(tmp_path / "p", {"1.png": 1}))]
    embed(both, tmp_path / "both", model=model)
    folder_of(tmp_path / "p", {"2.png": 2})
    assert embed(both, tmp_path / "both", model=model, update=True).run["items"] == 1
    equal_to_anew(both, tmp_path / "both", tmp_path / "anew-both", model)


def test_the_layout_of_clip_retrieval(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(5)})
    (photos / "bad.png").write_bytes(b"no image")
    options = {"model": model, "format": "npy", "shard_size": 4, "max_error_share": 0.5}
    embed(str(photos), tmp_path / "out", **options)
    (photos / "2.png").unlink()
    folder_of(photos, {"7.png": 7})
    embed(str(photos), tmp_path / "out", update=True, **options)
    embed(str(photos), tmp_path / "anew", **options)
    found = []
    for name in ("out", "anew"):
        embeddings = open_embeddings(tmp_path / name)
        (rows,) = embeddings.chunks(100)
        keys = [row.key for row in embeddings.rows(range(len(embeddings)))]
        found.append([rows[keys.index(key)] for key in sorted(keys)])
        assert sorted(keys) == [f"{n}.png" for n in (0, 1, 3, 4, 7)]
    np.testing.assert_allclose(*found, rtol=0, atol=EMBEDDING)


def test_scores_too(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(3)})
    for _ in range(2):
        result = score(
            str(photos), tmp_path / "out", model=model, labels=["a cat", "a dog"], update=True
        )
        folder_of(photos, {"9.png": 9})
    assert result.run["items"] == 1 and result.items == 4


def test_refused(model, tmp_path):
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(3)})
    out = tmp_path / "out"
    embed(str(photos), out, model=model)
    before = contents(out)
    other = folder_of(tmp_path / "other", {"x.png": 1})
    for source, options, said in (
        (other, {}, "nothing of what is in it is in the source any more; if that is another"),
        (photos, {"store": "float16"}, "job.store is 'float32' there and 'float16' here; choose"),
        (photos, {"what": "texts"}, "images have no texts"),
        (photos, {"shared": True}, "update is for one process"),
    ):
        with pytest.raises(ValueError, match=said):
            embed(str(source), out, model=model, update=True, **options)
    assert contents(out) == before
    embed(pictures(5), tmp_path / "told", model=model)
    with pytest.raises(ValueError, match="a Told does not say what changed in it"):
        embed(Told(pictures(6).items), tmp_path / "told", model=model, update=True)


def test_an_index_of_an_earlier_version_is_embedded_again(model, tmp_path):
    """It says nothing of contents, so that none of its rows can be known to be right."""
    photos = folder_of(tmp_path / "photos", {f"{n}.png": n for n in range(3)})
    out = tmp_path / "out"
    embed(str(photos), out, model=model)
    path = out / "data/00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["stamp"]), path)
    entry = json.loads((out / "ledger/00000.json").read_text())
    entry["files"][0] |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (out / "ledger/00000.json").write_text(json.dumps(entry))
    assert embed(str(photos), out, model=model, update=True).run["items"] == 3
    equal_to_anew(str(photos), out, tmp_path / "anew", model)
