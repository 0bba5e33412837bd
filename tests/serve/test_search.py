"""Search over HTTP: the hits of `siglip_jax.search`, and small images of them."""

import base64
import io
import re
import shutil

import numpy as np
import pyarrow.parquet
import pytest
from paths import REPO
from PIL import Image
from saved_model import saved

import siglip_jax
from siglip_jax.data.open import open_items
from siglip_jax.jobs import embed
from siglip_jax.search import open_embeddings, search
from siglip_jax.serve import create_app
from siglip_jax.serve.index import Index

FOLDER = REPO / "siglip_jax" / "emoji" / "pictures"
VAMPIRE = FOLDER / "1f9db-1f3fb.webp"
TEXTS = ["vampire light skin tone", "brown circle"]


@pytest.fixture(scope="module")
def model():
    return siglip_jax.load("siglip_emoji")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Some of the bundled images, one with a camera's metadata, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted(FOLDER.iterdir()):
        shutil.copy(path, folder)
    exif = Image.Exif()
    exif[0x0110] = "a camera of the secret service"
    Image.new("RGB", (900, 500), "red").save(folder / "wide.jpg", exif=exif)
    (folder / "zero.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def index(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("index") / "images"
    embed(open_items([str(images)]), out, model=model, max_error_share=1.0)
    return out


@pytest.fixture(scope="module")
def client(start, index):
    with start(index=index) as client:
        yield client


def uri(path):
    kind = path.suffix.removeprefix(".")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def ask(client, query, **fields):
    return client.post("/v1/search", json={"query": query, **fields})


def test_what_can_be_searched(client):
    about = {"object": "index", "model": "emoji", "what": "images", "rows": 10}
    assert client.get("/v1/index").json() == {"object": "list", "data": [about]}


@pytest.mark.parametrize("form", ["text", "object", "list"])
def test_texts_find_what_search_finds(client, scorer, index, form):
    query = {"text": TEXTS[0], "object": {"text": TEXTS[0]}, "list": TEXTS}[form]
    answer = ask(client, query, k=4).json()
    texts = TEXTS if form == "list" else TEXTS[:1]
    expected = search(open_embeddings(index), scorer.embed_texts(texts), 4)
    assert (answer["object"], answer["model"]) == ("list", "emoji")
    assert [each["index"] for each in answer["data"]] == list(range(len(texts)))
    t, b = (float(np.asarray(scorer.params[name]).item()) for name in ("t", "b"))
    for each, hits in zip(answer["data"], expected, strict=True):
        assert [(hit["row"], hit["key"]) for hit in each["hits"]] == [
            (hit.place, hit.row.key) for hit in hits
        ]
        for told, hit in zip(each["hits"], hits, strict=True):
            assert told["similarity"] == pytest.approx(hit.similarity, abs=1e-6)
            assert told["logit"] == pytest.approx(np.exp(t) * hit.similarity + b, abs=1e-4)
            assert told["score"] == pytest.approx(1 / (1 + np.exp(-told["logit"])), rel=1e-5)
            assert told["image"] == f"/v1/index/images/{hit.place}"
            assert "caption" not in told


def test_a_score_is_that_of_classify(client):
    hit = ask(client, TEXTS[0], k=1).json()["data"][0]["hits"][0]
    body = {"input": uri(VAMPIRE), "labels": TEXTS[:1]}
    (score,) = client.post("/v1/classify", json=body).json()["data"][0]["scores"]
    assert hit["key"] == VAMPIRE.name
    assert hit["logit"] == pytest.approx(score["logit"], abs=1e-3)


@pytest.mark.parametrize("form", ["uri", "object"])
def test_an_image_finds_itself_and_has_no_probability(client, form):
    query = uri(VAMPIRE) if form == "uri" else {"image": uri(VAMPIRE)}
    hits = ask(client, query, k=2).json()["data"][0]["hits"]
    assert hits[0]["key"] == VAMPIRE.name
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert "score" not in hits[0] and "logit" not in hits[0]


def test_more_queries_than_are_searched_together(client):
    queries = [TEXTS[n % 2] for n in range(11)]
    found = ask(client, queries, k=1).json()["data"]
    best = {text: ask(client, text, k=1).json()["data"][0]["hits"][0]["key"] for text in TEXTS}
    assert [each["hits"][0]["key"] for each in found] == [best[text] for text in queries]


def test_k_beyond_the_rows_gives_all_that_could_be_read(client):
    assert len(ask(client, "a dog", k=1000).json()["data"][0]["hits"]) == 9
    assert len(ask(client, "a dog").json()["data"][0]["hits"]) == 9


def test_nothing_compiles_after_the_start(client):
    # Of the whole process, in which other tests compile.
    before = recompiles(client)
    for k in (1, 10, 16, 17, 100, 1024):
        for query in ("a dog", ["a dog"] * 3, ["a dog"] * 9):
            assert ask(client, query, k=k).status_code == 200
    assert recompiles(client) == before


def recompiles(client):
    (line,) = re.findall(r"^siglip_recompiles_total (.*)$", client.get("/metrics").text, re.M)
    return float(line)


def test_a_thumbnail_is_small_and_has_no_metadata(client, index):
    rows = open_embeddings(index).rows(range(10))
    (row,) = [place for place, each in enumerate(rows) if each.key == "wide.jpg"]
    answer = client.get(f"/v1/index/images/{row}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert b"secret" not in answer.content
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (320, 178), {})
    assert client.get(f"/v1/index/images/{row}").content == answer.content


@pytest.mark.parametrize("row", ["10", "-1", "x", "1.5", "9" * 5000, "..%2F..%2Fetc%2Fpasswd", "²"])
def test_no_other_image_is_served(client, row):
    answer = client.get(f"/v1/index/images/{row}")
    assert answer.status_code == 404
    assert "path" not in answer.json()["error"]["message"] or row.startswith("..")


def test_an_image_that_is_none_is_named_by_its_row_only(client, index, images):
    rows = open_embeddings(index).rows(range(10))
    (row,) = [place for place, each in enumerate(rows) if each.key == "zero.png"]
    error = client.get(f"/v1/index/images/{row}").json()["error"]
    assert error["message"] == f"the image of row {row} cannot be read"


def test_an_image_that_has_gone(model, images, tmp_path):
    moved = shutil.copytree(images, tmp_path / "images")
    out = tmp_path / "index"
    embed(open_items([str(moved)]), out, model=model, max_error_share=1.0)
    index = Index(out, {"emoji": model})
    shutil.rmtree(moved)
    with pytest.raises(LookupError, match="no longer where it was"):
        index.thumbnail(0)


@pytest.mark.parametrize("source", ["parquet", "csv"])
def test_images_whose_keys_name_no_file_or_another(model, tmp_path, source):
    """The thumbnail is of the row, whatever lies beside it under the name of its key."""
    colours = {"a.png": (255, 0, 0), "b.png": (0, 0, 255)}
    for name, colour in colours.items():
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"of-{name}")
        Image.new("RGB", (40, 40), "white").save(tmp_path / name)
    table = tmp_path / f"rows.{source}"
    if source == "csv":
        lines = [f"{name},of-{name}" for name in colours]
        table.write_text("\n".join(["key,path", *lines]))
    else:
        files = [(tmp_path / f"of-{name}").read_bytes() for name in colours]
        pyarrow.parquet.write_table(pyarrow.table({"key": list(colours), "image": files}), table)
    out = tmp_path / "index"
    embed([str(table)], out, model=model)
    index = Index(out, {"emoji": model})
    keys = [row.key for row in index.embeddings.rows([0, 1])]
    assert keys == list(colours)
    for place, colour in enumerate(colours.values()):
        with Image.open(io.BytesIO(index.thumbnail(place))) as image:
            np.testing.assert_allclose(image.getpixel((20, 20)), colour, atol=3)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "query", "the field 'query' is missing"),
        ({"query": []}, "query", "query: the list is empty; give at least one"),
        ({"query": " "}, "query", "query: the text is empty"),
        ({"query": ["a", ""]}, "query[1]", "query[1]: the text is empty"),
        ({"query": {}}, "query", "query: expected a text or an image, one of them"),
        ({"query": {"text": "a", "image": "b"}}, "query", "one of them"),
        ({"query": "data:image/png;base64,!"}, "query", "base64"),
        ({"query": "a", "k": 0}, "k", ">= 1"),
        ({"query": "a", "k": 1025}, "k", "<= 1024"),
        ({"query": "a", "model": "emojy"}, "model", "did you mean emoji?"),
        ({"query": "a", "top": 3}, "top", "there is no field 'top'"),
        ({"query": 3}, "query", "expected"),
    ],
)
def test_wrong_requests(client, body, param, said):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == (404 if "model" in body else 400)
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]


def test_the_index_is_of_one_of_the_models(model, index, tmp_path):
    other = siglip_jax.load(saved(tmp_path / "other"))
    found = Index(index, {"other": other, "emoji": model})
    assert found.model == "emoji"
    assert found._searcher._ranked(1).several_threads  # beside those of the towers
    with pytest.raises(ValueError, match="which is not served: other differs in architecture; "):
        create_app({"other": other}, index=index)


def test_a_text_index_has_captions(model, start, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*TEXTS, "a dog"]))
    out = tmp_path / "index"
    embed(open_items([f"texts:{texts}"], only="texts"), out, model=model, what="texts")
    with start(index=out) as client:
        hit = ask(client, uri(VAMPIRE), k=1).json()["data"][0]["hits"][0]
        assert (hit["caption"], hit["score"] > 0.5) == (TEXTS[0], True)
        assert "image" not in hit
        assert "score" not in ask(client, "a cat", k=1).json()["data"][0]["hits"][0]
        assert client.get("/v1/index/images/0").status_code == 404


def test_without_an_index(start):
    with start() as client:
        assert client.get("/v1/index").json()["data"] == []
        answer = ask(client, "a dog")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_index")
        assert client.get("/v1/index/images/0").status_code == 404
