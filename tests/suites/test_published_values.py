"""What is published, beside the documents that it is from."""

import dataclasses

import numpy as np
import pytest
from suite_folders import tiny

from siglip_jax.checkpoints import CHECKPOINTS, find
from siglip_jax.preprocessing import preprocess_image, profile_for
from siglip_jax.preprocessing.resize import tf_resize
from siglip_jax.suites import SUITES, TASKS, SuiteResult, TaskResult, published, table
from siglip_jax.suites.catalogue import chosen, find_suite
from siglip_jax.suites.comparison import cells
from siglip_jax.suites.figures import draw
from siglip_jax.suites.published_values import _measured, published_average

# Of openclip_results.csv, as rounded in a table made by other hands.
OPEN_CLIP = [
    ("siglip_b16_224", "imagenet-a", 45.4),
    ("siglip_b16_512", "camelyon17", 66.1),
    ("siglip_l16_384", "cars", 94.9),
    ("siglip_so400m14_384", "fmow", 33.1),
    ("siglip_b16_256_i18n", "fgvc_aircraft", 33.2),
    ("siglip_so400m14_224", "winogavil", 56.6),
]


def test_every_checkpoint_has_values_of_a_paper():
    for checkpoint in CHECKPOINTS:
        values = [v for task in TASKS.values() for v in published(checkpoint.name, task)]
        papers = [value for value in values if value.origin.name != "open_clip"]
        assert papers, checkpoint.name
        assert all(0 < value.value < 100 for value in values)


@pytest.mark.parametrize(("model", "task", "value"), OPEN_CLIP)
def test_values_of_open_clip(model, task, value):
    (found,) = [v for v in published(model, TASKS[task]) if v.origin.name == "open_clip"]
    assert round(found.value, 1) == value and found.metric == TASKS[task].metric


def test_the_mean_of_the_tasks_is_the_published_average():
    """All 38 are there, of the metric that the average is made of."""
    tasks = SUITES["datacomp"].tasks
    assert len(tasks) == 38
    for model in {model for model, _ in _measured()}:
        values = [
            v.value
            for task in tasks
            for v in published(model, task)
            if v.origin.where.endswith("openclip_results.csv")
        ]
        average = published_average(model, "average_of_38")
        # The tables of SigLIP's authors differ by rounding to four digits.
        assert len(values) == 38 and abs(sum(values) / 38 - average.value) < 0.02, model


def test_suites_have_the_tasks_that_their_authors_count():
    assert {name: len(suite.tasks) for name, suite in SUITES.items()} == {
        "imagenet": 8,
        "vtab+": 36,
        "datacomp": 38,
        "retrieval": 3,
        "xm3600": 2,
        "offline": 5,
    }


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"suite must be one of .*; did you mean datacomp\?"):
        find_suite("datacom")
    with pytest.raises(ValueError, match=r"none of the 8 tasks of imagenet is 'imagenet2'; did"):
        chosen(SUITES["imagenet"], ["imagenet2"])


def result_of(profile, templates, crop=0.875, suite=SUITES["imagenet"]):
    found = TaskResult(
        task="imagenet1k",
        model="siglip_b16_224",
        profile=profile,
        kind="classification",
        metrics={"acc1": 0.75},
        templates=templates,
        about={"crop": crop},
    )
    return SuiteResult(
        suite=suite,
        model="siglip_b16_224",
        profile=profile,
        tasks=suite.tasks,
        results={"imagenet1k": found},
        missing={"objectnet": "no data: no folder"},
    )


@pytest.mark.parametrize(
    ("profile", "templates", "crop", "paper", "open_clip"),
    [
        ("big_vision", "clip_paper", 0.875, "yes", "no: preprocessing, templates"),
        ("big_vision", "clip_paper", 1.0, "no: crop", "no: preprocessing, templates"),
        ("open_clip", None, 1.0, "no: preprocessing, templates", "yes"),
        ("big_vision", None, 0.875, "no: templates", "no: preprocessing"),
    ],
)
def test_what_is_the_same(profile, templates, crop, paper, open_clip):
    rows = [row for row in table(result_of(profile, templates, crop)) if row.task == "imagenet1k"]
    assert [(row.source, row.same) for row in rows] == [
        ("SigLIP 2 paper", paper),
        ("open_clip", open_clip),
    ]
    assert [row.published for row in rows] == [76.2, 76.04]
    assert rows[0].difference == pytest.approx(-1.2)
    assert cells(rows)[1][:5] == ("ImageNet 1k", "acc@1", "75.00", "76.20", "-1.20")


def test_every_task_has_a_row_measured_or_not():
    result = result_of("big_vision", "clip_paper")
    rows = table(result)
    assert {row.task for row in rows} == {task.name for task in result.tasks}
    notes = {row.task: row.note for row in rows}
    assert notes["objectnet"].startswith("no data")
    assert notes["imagenetv2"] == "not yet: the same command goes on"


def test_a_figure_has_a_mark_for_each_value():
    pytest.importorskip("matplotlib")
    figure = draw(table(result_of("big_vision", "clip_paper")), "title")
    (axes,) = figure.axes
    points = [tuple(p.get_offsets()[0]) for p in axes.collections]
    assert points == [(76.2, 0), (76.04, 0), (75.0, 0)]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["SigLIP 2 paper", "open_clip, measured otherwise", "ours"]


def test_a_model_that_is_not_released_has_no_published_values():
    assert published("m", TASKS["imagenet1k"]) == []
    assert tiny().average is None


def test_images_of_classes_are_cropped_as_in_the_papers():
    """big_vision's `_square875`: resize(int(224 / 0.875)), then central_crop(224)."""
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    profile = profile_for(find("siglip_b16_224")).image
    profile = dataclasses.replace(profile, crop=SUITES["imagenet"].crop)
    expected = tf_resize(image, 256, 256)[16:240, 16:240]
    np.testing.assert_array_equal(preprocess_image(image, profile), expected)
