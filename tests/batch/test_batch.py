"""Callables over batches of columns: equal to a Scorer's, rows in error, one-line errors."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pandas
import pyarrow as pa
import pytest
from emoji_pictures import PICTURES
from PIL import Image
from saved_model import saved

import siglip_jax
from siglip_jax import jobs
from siglip_jax.batch import ImageEmbedder, LabelScorer, TextEmbedder, worker_model
from siglip_jax.data.failures import SettingError
from siglip_jax.programs import make_mesh

SIZE = 8
FILES = [path.read_bytes() for path in PICTURES] * 2 + [PICTURES[3].read_bytes()]
LABELS = ["brown circle", "vampire light skin tone", "a cat"]


@pytest.fixture(scope="module")
def scorer():
    import jax

    model = siglip_jax.load("siglip_emoji", mesh=make_mesh(jax.local_devices()))
    return model.scorer(batch_size=SIZE, text_batch_size=SIZE)


@pytest.fixture(scope="module")
def embedder():
    return ImageEmbedder("siglip_emoji", batch_size=SIZE)


def test_embeddings_are_the_scorers_bit_for_bit(scorer, embedder):
    made = embedder({"image": FILES, "key": list(range(len(FILES)))})
    expected = scorer.embed_images(FILES)
    assert made["embedding"].dtype == np.float32 and made["error"] == [""] * len(FILES)
    assert made["embedding"].tobytes() == expected.tobytes()
    assert made["key"] == list(range(len(FILES))) and made["image"] is not None
    # Divided in another way, an image has other neighbours in its batch.
    apart = [embedder({"image": FILES[i : i + 3]})["embedding"] for i in range(0, len(FILES), 3)]
    assert np.abs(np.concatenate(apart) - expected).max() < 1e-6


def test_texts_and_scores_are_the_scorers_bit_for_bit(scorer):
    texts = TextEmbedder("siglip_emoji", batch_size=SIZE)({"text": LABELS})
    assert texts["embedding"].tobytes() == scorer.embed_texts(LABELS).tobytes()
    template = ["an emoji of a {}", "{}"]
    expected = scorer.score(FILES, LABELS, template)
    of = LabelScorer("siglip_emoji", LABELS, templates=template, batch_size=SIZE)
    made = of({"image": FILES})
    assert made["logits"].tobytes() == expected.logits.tobytes()
    assert made["probabilities"].tobytes() == expected.probabilities.tobytes()
    best = LabelScorer("siglip_emoji", LABELS, templates=template, top=2, batch_size=SIZE)(
        {"image": [b"", *FILES]}
    )
    assert best["labels"][0] == [] and np.isnan(best["logits"][0]).all()
    for labels, logits, top in zip(
        best["labels"][1:], best["logits"][1:], expected.top(2), strict=True
    ):
        assert labels == [hit.label for hit in top]
        assert logits == pytest.approx([hit.logit for hit in top], abs=2e-5)


def test_a_job_writes_the_same_embeddings(embedder, tmp_path):
    model = siglip_jax.load("siglip_emoji")
    folder = PICTURES[0].parent
    jobs.embed(str(folder), tmp_path / "out", model=model, batch_size=SIZE)
    table = pa.parquet.read_table(tmp_path / "out" / "data")
    made = embedder({"path": [str(folder / key) for key in table["key"].to_pylist()]})
    stored = np.array(table["embedding"].to_pylist(), np.float32)
    assert np.abs(made["embedding"] - stored).max() < 1e-6


def test_whatever_stands_for_an_image(scorer, embedder, tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(FILES[0])
    pixels = np.asarray(Image.open(path).convert("RGB"))
    images = [
        FILES[0], bytearray(FILES[0]), memoryview(FILES[0]), str(path), path, f"file://{path}",
        {"bytes": FILES[0], "path": None}, {"bytes": None, "path": str(path)}, Image.open(path),
        pixels,
    ]  # fmt: skip
    column = np.empty(len(images), object)
    column[:] = images
    made = embedder({"image": column})
    assert made["error"] == [""] * len(images)
    assert np.ptp(made["embedding"][:8], axis=0).max() < 1e-6
    arrays = embedder({"image": np.stack([pixels, pixels])})
    assert np.abs(arrays["embedding"] - made["embedding"][-1]).max() < 1e-6


def test_an_unreadable_image_is_a_row_in_error(scorer, embedder, tmp_path):
    missing = str(tmp_path / "no.jpg")
    images = [
        FILES[0],
        None,
        b"",
        b"not an image",
        missing,
        3,
        float("nan"),
        {"path": ""},
        FILES[1],
    ]
    made = embedder({"image": images})
    good = scorer.embed_images([FILES[0], FILES[1]])
    assert np.abs(made["embedding"][[0, -1]] - good).max() < 1e-6
    assert np.isnan(made["embedding"][1:-1]).all()
    assert made["error"] == [
        "",
        "there is no image",
        "there is no image",
        "not an image in a known format",
        f"{missing}: cannot be read: No such file or directory",
        "expected bytes, a path, a Pillow image or an array, got int",
        "there is no image",
        "there is no image",
        "",
    ]
    alone = embedder({"image": [None]})
    assert alone["embedding"].shape == (1, 192) and np.isnan(alone["embedding"]).all()
    assert embedder({"image": []})["embedding"].shape == (0, 192)


def test_an_unreadable_text_is_a_row_in_error():
    made = TextEmbedder("siglip_emoji", batch_size=SIZE)({"caption": ["a", None, "\ud800", 7]})
    assert [bool(error) for error in made["error"]] == [False, True, True, True]
    assert made["error"][1] == "there is no text" and "int" in made["error"][3]
    assert np.isnan(made["embedding"]).all(axis=1).tolist() == [False, True, True, True]


def test_what_comes_back_is_what_was_given(embedder):
    expected = embedder({"image": FILES[:2]})["embedding"]
    frame = embedder(pandas.DataFrame({"image": FILES[:2], "n": [5, 6]}, index=[7, 9]))
    assert list(frame) == ["image", "n", "embedding", "error"] and list(frame.index) == [7, 9]
    assert frame["error"].tolist() == ["", ""]
    assert np.stack(frame["embedding"]).tobytes() == expected.tobytes()
    of = LabelScorer("siglip_emoji", LABELS, top=1, keep=["n"], batch_size=SIZE)
    for kind in (pa.table, pa.RecordBatch.from_pydict):
        batch = kind({"image": FILES[:2], "n": [5, 6]})
        made = embedder(batch)
        assert type(made) is type(batch)
        assert made.schema.field("embedding").type == pa.list_(pa.float32(), 192)
        assert made.schema.field("error").type == pa.string()
        assert np.array(made["embedding"].to_pylist(), np.float32).tobytes() == expected.tobytes()
        made = of(batch)
        assert made.schema.names == ["n", "labels", "logits", "probabilities", "error"]
        assert made.schema.field("labels").type == pa.list_(pa.string())
        assert of(batch.slice(0, 0)).schema == made.schema


def test_keep_and_names_of_columns():
    one = {"image": FILES[:1], "caption": ["a cat"], "n": np.arange(1)}
    images = ImageEmbedder(
        "siglip_emoji", embedding_column="zimg", error_column="image_error",
        keep=["caption", "n"], batch_size=SIZE,
    )  # fmt: skip
    texts = TextEmbedder("siglip_emoji", embedding_column="ztxt", keep=["n", "zimg"])
    made = texts(images(one) | {"extra": ["x"]})
    assert list(made) == ["n", "zimg", "ztxt", "error"]
    with pytest.raises(ValueError, match="the batch has no column nn; the columns are image"):
        ImageEmbedder("siglip_emoji", keep=["nn"], batch_size=SIZE)(one)
    with pytest.raises(ValueError, match=r"a column error already; give the new one another name"):
        ImageEmbedder("siglip_emoji", batch_size=SIZE)(one | {"error": [""]})


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            {"imgae": [b""]},
            "no column image or img .* did you mean image_column='imgae'",
        ),
        ({"image": b"abc"}, r"column image is 3 bytes of bytes: that is a row, .* map_batches"),
        ({"image": np.array([b"a"])}, r"column image is of numpy's type \|S1, which drops zeros"),
        ({"image": [b""], "n": [1, 2]}, "must be of one length: image has 1, n has 2"),
        ([b"abc"], r"expected a batch of columns \(a dict, .*\), got list"),
    ],
)
def test_what_is_no_batch_is_one_line(embedder, batch, said):
    with pytest.raises(ValueError, match=said) as raised:
        embedder(batch)
    assert "\n" not in str(raised.value)
    assert type(pickle.loads(pickle.dumps(raised.value))) in (ValueError, SettingError)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ImageEmbedder(siglip_jax.load("siglip_emoji")), "got Pretrained; give its name"),
        (lambda: LabelScorer("siglip_emoji", "a cat"), "labels must be a list of strings"),
        (lambda: LabelScorer("siglip_emoji", ["a"], top=2), "top must be from 1 to 1, got 2"),
        (lambda: LabelScorer("siglip_emoji", templates=["{}"]), "templates are for labels"),
        (lambda: TextEmbedder("siglip_emoji", keep="n"), "keep must be a list of columns"),
    ],
)
def test_what_cannot_be_is_said_before_a_worker_starts(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "/no/such/weights.npz"}, "weights.npz"),
        ({"model": "ViT-B-16-SigLP"}, "did you mean ViT-B-16-SigLIP"),
        ({"model": "siglip_emoji", "reso": 32}, "reso"),
    ],
)
def test_a_worker_without_the_model_names_itself(options, said):
    with pytest.raises(ValueError, match=rf"cannot be loaded on the worker .*{said}") as raised:
        ImageEmbedder(**options)({"image": FILES[:1]})
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is ValueError and "\n" not in str(again)


def test_own_classes_of_a_fine_tune(tmp_path):
    with pytest.raises(ValueError, match="this model has no classifier"):
        LabelScorer("siglip_emoji", batch_size=SIZE)({"image": FILES[:1]})
    from siglip_jax.classifier import Classifier

    model = siglip_jax.load("siglip_emoji")
    rng = np.random.default_rng(0)
    classifier = Classifier(
        labels=("a", "b", "c"), kernel=rng.standard_normal((192, 3)), bias=np.zeros(3),
        pooling="mean", activation="softmax",
    )  # fmt: skip
    folder = siglip_jax.save(
        tmp_path / "m", model.model, model.params, profile=model.profile, classifier=classifier
    )
    expected = siglip_jax.load(folder).scorer(tokenizer=False, batch_size=SIZE).classify(FILES)
    made = LabelScorer(folder, top=1, batch_size=SIZE)({"image": FILES})
    assert made["labels"] == [[row[0].label] for row in expected.top(1)]
    assert made["probabilities"][:, 0] == pytest.approx(
        expected.probabilities.max(axis=1), abs=1e-5
    )


def test_a_path_is_found_from_another_working_folder(tmp_path, monkeypatch):
    folder = saved(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    embedder = ImageEmbedder("m", batch_size=SIZE)
    monkeypatch.chdir("/")
    assert embedder({"image": FILES[:1]})["error"] == [""]
    assert pickle.dumps(embedder) == pickle.dumps(ImageEmbedder(folder, batch_size=SIZE))


def test_pickled_before_and_after_use_it_is_small_and_loads_once(tmp_path, monkeypatch):
    folder = saved(tmp_path / "m")
    embedder = ImageEmbedder(folder, batch_size=SIZE)
    before = pickle.dumps(embedder)
    loads = []
    monkeypatch.setattr(
        "siglip_jax.pretrained.load_params",
        (lambda f: lambda *a, **k: loads.append(1) or f(*a, **k))(
            siglip_jax.pretrained.load_params
        ),
    )
    first = embedder({"image": FILES[:1]})["embedding"]
    assert pickle.dumps(embedder) == before and len(before) < 1000
    again = pickle.loads(before)
    assert again({"image": FILES[:1]})["embedding"].tobytes() == first.tobytes()
    TextEmbedder(folder, batch_size=SIZE)({"text": ["a"]})
    assert len(loads) == 1


def test_out_of_memory_is_one_line_with_the_batch_size(embedder, monkeypatch):
    def full(*args, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n\tpages of it")

    monkeypatch.setattr(siglip_jax.Scorer, "embed_items", full)
    with pytest.raises(ValueError, match=r"^out of memory on the worker \S+; a smaller batch_size"):
        embedder({"image": FILES[:1]})


def test_a_process_forked_after_a_model_was_loaded_says_so(embedder, monkeypatch):
    embedder({"image": FILES[:1]})
    monkeypatch.setattr(worker_model, "_loaded_in", os.getpid() + 1)
    with pytest.raises(ValueError, match="forked from one that has loaded a model"):
        embedder({"image": FILES[:1]})


def test_where_work_is_planned_jax_is_not_imported():
    program = (
        "import pickle, sys\n"
        "from siglip_jax.batch import ImageEmbedder, LabelScorer\n"
        "pickle.dumps([ImageEmbedder('m'), LabelScorer('m', ['a'])])\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
