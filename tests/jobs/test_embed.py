"""Embedding in bulk: what is written, and by what it is refused."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_inputs import Told, contents, picture, pictures, table
from saved_model import VOCABULARY, saved
from tolerances import EMBEDDING

import siglip_jax
from siglip_jax.data.item import Item
from siglip_jax.jobs import embed, read_manifest

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


def column(rows, name):
    return rows.column(name).to_pylist()


def test_equals_the_scorer(model, tmp_path):
    source = pictures(10)
    result = embed(source, tmp_path / "out", model=model, batch_size=3)
    assert (result.finished, result.code, result.items, result.errors) == (True, 0, 10, 0)
    rows = table(tmp_path / "out")
    assert column(rows, "key") == [item.key for item in source.items]
    assert column(rows, "width") == [20 + i % 7 for i in range(10)]
    assert column(rows, "height") == [16] * 10 and column(rows, "error") == [None] * 10
    expected = model.scorer(tokenizer=False).embed_images([item.image for item in source.items])
    np.testing.assert_allclose(
        np.array(column(rows, "embedding")), expected, rtol=0, atol=EMBEDDING
    )
    assert str(rows.schema.field("embedding").type).startswith("fixed_size_list<element: float")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.space["width"] == 24 and manifest.source["shards"] == 3
    assert manifest.space["profile"] == model.profile.to_dict()
    assert manifest.t == pytest.approx(float(model.params["t"][0]))
    about = json.loads(rows.schema.metadata[b"siglip_jax"])
    assert about["weights"] == manifest.space["weights"]
    assert result.run["items"] == 10 and 0 < result.run["device_busy"] <= 1


def test_texts(model, tmp_path):
    texts = ["a cat", "a dog", "", "two dogs", "a donut"]
    source = Told([Item(str(i), text=text) for i, text in enumerate(texts)], 2)
    assert embed(source, tmp_path / "out", model=model, what="texts").finished
    rows = table(tmp_path / "out")
    assert rows.column_names == ["key", "text", "embedding", "error", "stamp"]
    assert column(rows, "text") == texts
    expected = model.scorer().embed_texts(texts)
    np.testing.assert_allclose(
        np.array(column(rows, "embedding")), expected, rtol=0, atol=EMBEDDING
    )


def test_bad_items_keep_their_rows_and_say_why(model, tmp_path):
    items = [
        Item("a", picture(0)),
        Item("b", b"hello"),
        Item("c", picture(1)[:60]),
        Item("d", error="the server said 404"),
        Item("e", str(tmp_path / "gone.png")),
        Item("f", text="no picture"),
        Item("g", picture(2)),
    ]
    result = embed(Told(items), tmp_path / "out", model=model, max_error_share=1)
    assert (result.items, result.errors, result.code) == (7, 5, 0)
    rows = table(tmp_path / "out")
    errors = column(rows, "error")
    assert errors[1] == "not an image in a known format" and "truncated" in errors[2]
    assert errors[3:6] == [
        "the server said 404",
        f"{tmp_path / 'gone.png'}: cannot be read: No such file or directory",
        "there is no image",
    ]
    good = [0, 6]
    assert [i for i, error in enumerate(errors) if error is None] == good
    for name in ("embedding", "width", "height"):
        assert [i for i, x in enumerate(column(rows, name)) if x is not None] == good
    expected = model.scorer(tokenizer=False).embed_images([items[i].image for i in good])
    got = [column(rows, "embedding")[i] for i in good]
    np.testing.assert_allclose(got, expected, rtol=0, atol=EMBEDDING)
    entry = json.loads((tmp_path / "out/ledger/00000.json").read_text())
    assert (entry["rows"], entry["errors"]) == (4, 3)
    assert entry["reasons"][0] == {"key": "b", "error": "not an image in a known format"}


def test_the_layout_of_clip_retrieval(model, tmp_path):
    source = pictures(6)
    source.items[1] = Item("bad", b"hello")
    result = embed(source, tmp_path / "out", model=model, format="npy", store="float16")
    assert result.finished and result.excessive and result.code == 2
    first = np.load(tmp_path / "out/img_emb/img_emb_0000.npy")
    assert first.shape == (3, 24) and first.dtype == np.float16
    metadata = pq.read_table(tmp_path / "out/metadata/metadata_0000.parquet")
    assert metadata.column("image_path").to_pylist() == ["0000.png", "0002.png", "0003.png"]
    texts = Told([Item("0", text="a cat")])
    embed(texts, tmp_path / "texts", model=model, what="texts", format="npy")
    assert np.load(tmp_path / "texts/text_emb/text_emb_0000.npy").shape == (1, 24)
    metadata = pq.read_table(tmp_path / "texts/metadata/metadata_0000.parquet")
    assert metadata.column("caption").to_pylist() == ["a cat"]


def test_a_wrong_folder_stops_the_job_and_keeps_what_is_finished(model, tmp_path):
    source = pictures(60, size=12)
    for i in range(14, 60):
        source.items[i] = Item(f"{i}.jpg", b"hello")
    with pytest.raises(
        ValueError,
        match=r"^10 of 24 items \(41\.7%\) cannot be read, more than the share of 0\.01 that may "
        r"be; the first is 14\.jpg: not an image.*; what is finished is kept, and a larger "
        r"max_error_share allows more$",
    ):
        embed(source, tmp_path / "out", model=model)
    assert [p.name for p in (tmp_path / "out/ledger").iterdir()] == ["00000.json"]
    again = embed(source, tmp_path / "out", model=model, max_error_share=0.9)
    assert (again.finished, again.errors, again.items, again.code) == (True, 46, 60, 0)
    assert again.run["items"] == 48
    with pytest.raises(ValueError, match=r"max_error_share must be a share from 0 to 1, got 2"):
        embed(source, tmp_path / "out", model=model, max_error_share=2)
    with pytest.raises(ValueError, match=r"^1 of \d+ items .* cannot be read"):
        embed(source, tmp_path / "strict", model=model, max_error_share=0)


def test_a_shard_that_cannot_be_opened_is_tried_again(model, tmp_path):
    source = pictures(12)
    kept = source.items[4]
    source.items[4] = ValueError("told 1: the server does not answer")
    identity = source.identity()
    source.identity = lambda: identity
    result = embed(source, tmp_path / "out", model=model)
    assert not result.finished and result.code == 2 and result.done == 2
    assert result.unreadable == ("told 1: the server does not answer",)
    assert "1 shard could not be opened" in result.sentence()
    source.items[4] = kept
    assert embed(source, tmp_path / "out", model=model).finished
    embed(pictures(12), tmp_path / "other", model=model)
    one, other = contents(tmp_path / "out"), contents(tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(one[name] == other[name] for name in one if name != "manifest.json")


def test_many_shards_that_cannot_be_opened_stop_it(model, tmp_path):
    source = Told([OSError("no route to host")] * 9, 1)
    with pytest.raises(ValueError, match=r"^4 shards could not be opened; the last: told 3: no ro"):
        embed(source, tmp_path / "out", model=model)


def test_again_and_a_lost_file(model, tmp_path):
    embed(pictures(9), tmp_path / "out", model=model)
    before = contents(tmp_path / "out")
    again = embed(pictures(9), tmp_path / "out", model=model)
    assert again.already and again.finished and again.code == 0
    assert again.sentence().endswith("is finished already: 9 items in 3 shards; nothing to do")
    (tmp_path / "out/data/00001.parquet").unlink()
    mended = embed(pictures(9), tmp_path / "out", model=model)
    assert mended.run["items"] == 4 and contents(tmp_path / "out") == before


def test_nothing_is_mixed(model, tmp_path):
    out = tmp_path / "out"
    embed(pictures(5), out, model=model)
    before = contents(out)
    image = dataclasses.replace(model.profile.image, exif=True, resize="pil_bicubic")
    profile = dataclasses.replace(model.profile, image=image)
    params = {**model.params, "b": model.params["b"] + 1}
    execution = dataclasses.replace(model.model.execution, dtype="bfloat16")
    for change, named in (
        ({"source": pictures(6)}, r"the data have changed \(source\.identity is "),
        ({"store": "float16"}, r"job\.store is 'float32' there and 'float16' here"),
        ({"what": "texts"}, r"job\.what is 'images' there and 'texts' here"),
        (
            {"model": dataclasses.replace(model, profile=profile)},
            r"space\.profile\.image\.resize is 'tf_bilinear' there and 'pil_bicubic' here; "
            r"space\.profile\.image\.exif is False there",
        ),
        (
            {"model": dataclasses.replace(model, params=params, name="new")},
            r"the model is m there and new here \(other weights\)",
        ),
        (
            {"model": dataclasses.replace(model, model=model.model.clone(execution=execution))},
            r"space\.execution\.dtype is 'float32' there and 'bfloat16' here",
        ),
    ):
        with pytest.raises(ValueError, match=f"out holds another job: .*{named}"):
            embed(**{"source": pictures(5), "out": out, "model": model} | change)
        assert contents(out) == before
    # The same weights under another name are the same.
    assert embed(pictures(5), out, model=dataclasses.replace(model, name="alias")).already


def test_folders_that_are_no_job(model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"file is a file; choose a folder$"):
        embed(pictures(1), tmp_path / "file", model=model)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"full is not empty and holds no job; choose another"):
        embed(pictures(1), tmp_path / "full", model=model)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/manifest.json").write_text('{"format": 9}')
    with pytest.raises(ValueError, match=r"of format 9; this version of siglip_jax reads 1$"):
        embed(pictures(1), tmp_path / "new", model=model)
    (tmp_path / "new/manifest.json").write_text("[]")
    with pytest.raises(ValueError, match=r"manifest\.json: not the manifest of a job: "):
        read_manifest(tmp_path / "new")
    with pytest.raises(ValueError, match=r"holds no output of a job: there is no manifest\.json"):
        read_manifest(tmp_path)


def test_an_empty_source_and_wrong_choices(model, tmp_path):
    with pytest.raises(ValueError, match="there is nothing to do: no shard of the source has an"):
        embed(Told([]), tmp_path / "out", model=model)
    for wrong, said in (
        ({"what": "image"}, "what must be one of images, texts, pairs, got 'image'; did you mean"),
        ({"format": "csv"}, "format must be one of parquet, npy, got 'csv'"),
        ({"store": "float61"}, "store must be .* did you mean float16?"),
        ({"what": "pairs"}, "pairs are scored"),
    ):
        with pytest.raises(ValueError, match=said):
            embed(pictures(1), tmp_path / "out", model=model, **wrong)


def test_naflex(tmp_path):
    loaded = siglip_jax.load(saved(tmp_path / "m", "naflex"), vocabulary=VOCABULARY)
    assert embed(pictures(5), tmp_path / "out", model=loaded).finished
    expected = loaded.scorer(tokenizer=False).embed_images([i.image for i in pictures(5).items])
    got = np.array(column(table(tmp_path / "out"), "embedding"))
    np.testing.assert_allclose(got, expected, rtol=0, atol=EMBEDDING)


def test_devices_and_split_weights(model, tmp_path):
    embed(pictures(9), tmp_path / "one", model=model)
    mesh = siglip_jax.make_mesh(model=2)
    split = dataclasses.replace(model, mesh=mesh, rules=siglip_jax.FSDP)
    assert embed(pictures(9), tmp_path / "all", model=split).finished
    one, several = (np.array(column(table(tmp_path / n), "embedding")) for n in ("one", "all"))
    np.testing.assert_allclose(several, one, rtol=0, atol=EMBEDDING)


def test_processes_write_what_threads_write(model, tmp_path):
    items = [Item(f"{i}", picture(i, 20 + i % 7)) for i in range(20)]
    items[3:5] = [Item("3", b"hello"), Item("4", picture(4)[:60])]
    written = []
    for count in (0, 2):
        out = tmp_path / str(count)
        embed(Told(items), out, model=model, max_error_share=1, decode_processes=count)
        written.append(contents(out))
    assert written[0] == written[1]


def test_texts_are_not_decoded(model, tmp_path):
    texts = Told([Item("a", text="a dog")])
    with pytest.raises(ValueError, match="texts are not decoded; leave out decode_processes"):
        embed(texts, tmp_path / "out", model=model, what="texts", decode_processes=2)
    assert not (tmp_path / "out").exists()
    assert embed(texts, tmp_path / "out", model=model, what="texts").finished


@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_a_number_of_processes_that_is_none(model, tmp_path, count):
    with pytest.raises(ValueError, match="expected a whole number of processes, 0 for threads"):
        embed(pictures(2), tmp_path / "out", model=model, decode_processes=count)
    assert not (tmp_path / "out").exists()
