"""Our metrics beside big_vision's own functions.

Needs a big_vision checkout on PYTHONPATH and the `parity` extra.
"""

import importlib
import importlib.util
import sys
import types
import warnings

import numpy as np
import pytest
from tolerances import EMBEDDING

from siglip_jax.evaluation import (
    TEMPLATES,
    Images,
    Multilingual,
    canonicalize,
    class_embeddings,
    class_texts,
    recall,
)
from siglip_jax.programs import make_mesh

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # TensorFlow's and big_vision's own, at import
    pytest.importorskip(
        "big_vision.utils", reason="needs big_vision: run `make parity BIG_VISION=...`"
    )
    if importlib.util.find_spec("tensorflow_datasets") is None:
        # Imported there at once, used here for nothing.
        stand_in = types.ModuleType("tensorflow_datasets")
        patch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    evaluators = "big_vision.evaluators.proj.image_text"
    retrieval = pytest.importorskip(f"{evaluators}.image_text_retrieval")
    constants = importlib.import_module(f"{evaluators}.prompt_engineering_constants")
    prompts = importlib.import_module(f"{evaluators}.prompt_engineering")
    classifier = importlib.import_module(f"{evaluators}.discriminative_classifier")
    import tensorflow as tf
    from big_vision.datasets.imagenet import class_names

# big_vision is not ours to fix; ours stays under the suite's own rule everywhere else.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_templates():
    names = {name: list(templates) for name, templates in TEMPLATES.items()}
    assert names == prompts._PROMPT_TEMPLATES
    assert names["clip_paper"] == constants.CLIP_PAPER_PROMPT_TEMPLATES


@pytest.mark.parametrize("keep", ["", ",", "{}"])
def test_canonical_texts(keep):
    texts = [
        *TEMPLATES["clip_paper"],
        *class_names.CLIP_IMAGENET_CLASS_NAMES,
        *("A_b-c, D {} {x}{}{ }", "  \t,\n Straße İ Σς “x”   ", "", "!?", ",,a,"),
    ]
    assert [canonicalize(text, keep=keep) for text in texts] == [
        prompts.canonicalize_text(text, keep_punctuation_exact_string=keep) for text in texts
    ]


def theirs(names, templates, canonical):
    """(class, sentence) as big_vision's evaluator makes them of its arguments."""
    images = tf.data.Dataset.from_tensor_slices({"label": [0], "image": np.zeros((1, 4, 4, 3))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prompts._PROMPT_TEMPLATES, "mine", templates)
        templates = prompts.get_prompt_templates("mine", canonicalize=canonical)
    _, texts = classifier.prepare_datasets(
        images,
        prompts.get_class_names(dataset_name="mine", source=names, canonicalize=canonical),
        prompt_templates=templates,
        pp_img="value_range(-1, 1)",
        pp_txt="copy(inkey='texts', outkey='labels')",
    )
    return [(int(x["label"]), x["labels"].decode()) for x in texts.as_numpy_iterator()]


NAMES = ["Great_white shark, man-eater, Carcharodon", "hen", "Crème brûlée,T-shirt"]


@pytest.mark.parametrize("canonical", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_class_texts(name, canonical):
    ours = class_texts(NAMES, TEMPLATES[name], canonical=canonical, aliases="all")
    expected = theirs(NAMES, list(TEMPLATES[name]), canonical)
    assert [(i, text) for i, own in enumerate(ours) for text in own] == expected


def test_the_first_alias_only():
    names = prompts.get_class_names(dataset_name="mine", source=NAMES, canonicalize=True)
    # As the evaluator's constructor does by default.
    assert [own[0] for own in class_texts(NAMES, ["{}"])] == [n.split(",")[0] for n in names]


def test_class_embeddings():
    rng = np.random.default_rng(0)
    known: dict[str, np.ndarray] = {}

    def encode(texts):
        for text in texts:
            z = rng.standard_normal(24).astype(np.float32)
            known.setdefault(text, z / np.linalg.norm(z))
        return np.stack([known[text] for text in texts])

    templates = TEMPLATES["clip_best"]
    ours = class_embeddings(encode, NAMES, templates, aliases="all")
    labels, texts = zip(*theirs(NAMES, list(templates), True), strict=True)
    expected = classifier._average_embeddings(
        encode(texts), labels=np.array(labels), num_classes=len(NAMES), normalize=True
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=EMBEDDING)


@pytest.mark.parametrize("mesh", [None, make_mesh()])
@pytest.mark.parametrize(("images", "texts"), [(40, 200), (300, 300), (200, 40)])
def test_recall(images, texts, mesh):
    rng = np.random.default_rng(texts)
    owner = rng.integers(0, images, texts)
    zimg = rng.standard_normal((images, 32), np.float32)
    ztxt = zimg[owner] + 3 * rng.standard_normal((texts, 32), np.float32)
    zimg, ztxt = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (zimg, ztxt))
    # As their Evaluator.evaluate and .run do.
    distances = -np.dot(zimg, ztxt.T)
    directions = {
        "img2txt": retrieval.image_to_text_retrieval_eval(distances, list(owner)),
        "txt2img": retrieval.text_to_image_retrieval_eval(distances, list(owner)),
    }
    expected = {
        f"{direction}_{name.lower()}": value
        for direction, values in directions.items()
        for name, value in values.items()
    }
    got = recall(zimg, ztxt, owner, mesh=mesh, chunk=128)
    assert got == expected and list(got) == list(expected)
    assert 0.1 < got["txt2img_recall@10"] < 1


@pytest.mark.parametrize("mesh", [None, make_mesh()])
def test_languages(mesh):
    """big_vision has a data set for each language of XM3600: the mean of what it says of each."""
    rng = np.random.default_rng(7)
    owner, spoken = rng.integers(0, 50, 400), rng.choice(["de", "sw", "quz"], 400)
    owner[spoken == "sw"] %= 20
    zimg = rng.standard_normal((50, 32), np.float32)
    ztxt = zimg[owner] + 4 * rng.standard_normal((400, 32), np.float32)
    zimg, ztxt = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (zimg, ztxt))
    captions = [[f"{row}" for row in np.flatnonzero(owner == image)] for image in range(50)]
    languages = [[spoken[int(text)] for text in own] for own in captions]
    got, facts = Multilingual(captions, languages).measure(
        Images(zimg, np.arange(50)), lambda texts: ztxt[[int(text) for text in texts]], mesh
    )
    each = []
    for language in facts["languages"]:
        mine = np.flatnonzero(spoken == language)
        images = np.unique(owner[mine])
        distances, own = -np.dot(zimg[images], ztxt[mine].T), np.searchsorted(images, owner[mine])
        each.append(
            {
                **{
                    f"img2txt_{name.lower()}": value
                    for name, value in retrieval.image_to_text_retrieval_eval(
                        distances, list(own)
                    ).items()
                },
                **{
                    f"txt2img_{name.lower()}": value
                    for name, value in retrieval.text_to_image_retrieval_eval(
                        distances, list(own)
                    ).items()
                },
            }
        )
        assert facts["languages"][language]["metrics"] == each[-1]
    mean = {name: np.mean([one[name] for one in each]) for name in each[0]}
    assert got == pytest.approx(mean, rel=0, abs=1e-6) and len(each) == 3
    assert 0 < got["txt2img_recall@1"] < 1
