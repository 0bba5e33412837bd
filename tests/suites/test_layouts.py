"""The layouts that people have, read as one."""

import json
import sys
import types

import fsspec
import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from pair_files import png
from suite_folders import NAMES, REGIONS, TARGETS, describe, folders, labelled_table, tars, wds

from siglip_jax.evaluation import IMAGENET_NAMES, imagenet_classes
from siglip_jax.evaluation.imagenet import IMAGENET_SETS
from siglip_jax.suites import TASKS, Task
from siglip_jax.suites.layouts import NoData, task_data

TASK = Task(name="things", title="Things", classes=6, path="vtab/things")


def found(root, task=TASK):
    data = task_data(task, str(root))
    items = [item for shard in range(len(data.images.shards())) for item in data.images.read(shard)]
    return data, [item.key for item in items]


def test_tars_of_the_hubs(tmp_path):
    tars(tmp_path / "wds_vtab-things")
    data, keys = found(tmp_path, Task(name="things", title="", path="vtab/things", group=0))
    assert sorted(keys) == sorted(data.right) and len(keys) == len(TARGETS)
    number = {key: int(key.rpartition("s")[2]) for key in keys}
    assert data.right == {key: (TARGETS[n],) for key, n in number.items()}
    assert data.groups == {key: REGIONS[n] for key, n in number.items()}
    assert (data.names, data.templates) == (NAMES, ["my {}", "{}"])


def test_class_folders(tmp_path):
    folders(tmp_path / "things")
    data, keys = found(tmp_path)
    assert data.right == {key: (int(key[1]),) for key in keys} and len(keys) == len(TARGETS)
    assert data.names == NAMES


def test_class_folders_without_names_are_called_what_they_are(tmp_path):
    (folders(tmp_path / "things") / "classnames.txt").unlink()
    assert found(tmp_path)[0].names == [f"c{n}" for n in range(6)]


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_tables_of_hugging_face(tmp_path, kind):
    folder = tmp_path / "wds_things" / "test"
    folder.mkdir(parents=True)
    table = labelled_table()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, folder / "0.parquet", row_group_size=5)
    else:
        new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with new(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text("{}")
    data, keys = found(tmp_path)
    assert [data.right[key] for key in keys] == [(target,) for target in TARGETS]
    assert data.names == NAMES
    assert next(data.images.read(0)).image == png(0)


def test_several_right_classes_and_none(tmp_path):
    samples = [{"cls": text, "png": png(n)} for n, text in enumerate([b"1", b"[0, 2]", b"[]"])]
    wds(describe(tmp_path / "things", NAMES[:3]), samples, 1)
    data, keys = found(tmp_path, Task(name="things", title=""))
    assert [data.right.get(key) for key in keys] == [(1,), (0, 2), None]


def test_no_data_says_what_was_looked_for(tmp_path):
    with pytest.raises(NoData, match=r"no folder wds_vtab-pets in .*, nor wds_vtab-pets_test, "):
        task_data(TASKS["pets"], str(tmp_path))


def broken(folder, how):
    if how == "beyond":
        tars(folder, [*TARGETS[:-1], 9])
    elif how == "empty":
        tars(folder, [0 if target == 4 else target for target in TARGETS])
    elif how == "blank":
        describe(tars(folder), [*NAMES[:5], " "])
        text = (folder / "classnames.txt").read_text()
        (folder / "classnames.txt").write_text(text.rstrip() + "\n \n")
    elif how == "many":
        tars(folder)
        describe(folder, [*NAMES, "more"])
    elif how == "missing":
        (tars(folder) / "test/1.tar").unlink()
    elif how == "no names":
        (tars(folder) / "classnames.txt").unlink()
    elif how == "no class":
        wds(describe(folder), [{"png": png(0)}], 1)
    elif how == "folder names":
        describe(folders(folder), NAMES[:5])
    elif how == "flat":
        folders(folder)
        (folder / "x.png").write_bytes(png(0))
    elif how == "synsets":
        for name in ("n01440764", "n01443537"):
            (folder / name).mkdir(parents=True)
            (folder / name / "a.png").write_bytes(png(0))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("beyond", r"s0017 is of class 9, but there are 6 class names \(0 to 5\); 1 such class"),
        ("empty", r"1 class has no image, the first is class 4 \('a tree'\)"),
        ("blank", "class 5 of 6 has an empty name"),
        ("many", "7 class names, but this task has 6 classes"),
        ("missing", "nshards.txt says 3 tars, but 1 are not there, such as 1.tar"),
        ("no names", "there is no classnames.txt: write one, a name a line"),
        ("no class", "no image has a class; expected a .cls beside each"),
        ("folder names", "classnames.txt has 5 names, but there are 6 folders"),
        ("flat", "1 image is in no folder of a class, such as x.png"),
        ("synsets", "its classes are numbers of WordNet, such as n01440764"),
    ],
)
def test_what_does_not_fit(tmp_path, how, message):
    broken(tmp_path / "things", how)
    with pytest.raises(ValueError, match=message):
        found(tmp_path)


def test_a_table_of_captions_for_each_language(tmp_path):
    folder = tmp_path / "spoken"
    (folder / "images").mkdir(parents=True)
    for n in range(3):
        (folder / f"images/{n}.png").write_bytes(png(n))
    (folder / "captions-de.csv").write_text(
        "image,text\nimages/0.png,Hund\nimages/1.png,Katze\nimages/1.png,ein Kater\n", "utf-8"
    )
    lines = [{"image": f"images/{n}.png", "caption": f"狗 {n}"} for n in range(3)]
    (folder / "captions-zh-Hans.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), "utf-8"
    )
    data, keys = found(tmp_path, Task(name="spoken", title="", kind="multilingual"))
    assert data.captions == {
        "de": {keys[0]: ("Hund",), keys[1]: ("Katze", "ein Kater")},
        "zh-Hans": {key: (f"狗 {n}",) for n, key in enumerate(keys)},
    }


def test_captions_of_an_image_that_is_not_there(tmp_path):
    folder = tmp_path / "spoken"
    (folder / "images").mkdir(parents=True)
    (folder / "images/0.png").write_bytes(png(0))
    line = {"image/key": "1", "en": {"caption": ["a dog"]}}
    (folder / "captions.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="there are captions of 1, but no such image"):
        found(tmp_path, Task(name="spoken", title="", kind="multilingual"))


def test_tars_of_a_bucket(tmp_path):
    tars(tmp_path / "wds_vtab-things_test")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path), "/suites", recursive=True)
    try:
        data, keys = found("memory://suites")
        here, _ = found(tmp_path)
        assert [data.right[key] for key in keys] == list(here.right.values())
        assert (data.names, data.templates) == (NAMES, ["my {}", "{}"])
        with pytest.raises(NoData, match="no folder wds_vtab-others in memory://suites, nor "):
            found("memory://suites", Task(name="others", title="", path="vtab/others"))
    finally:
        bucket.store.clear()
        bucket.pseudo_dirs[:] = [""]


class Records:
    """What `tensorflow_datasets.data_source` returns, of some classes."""

    def __init__(self, names, labels):
        label = types.SimpleNamespace(names=list(names))
        self.labels = labels
        self.dataset_info = types.SimpleNamespace(
            features={"image": ..., "label": label}, version="1.0.0"
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": png(index), "label": np.int64(self.labels[index])}


# As many as ImageNet has, with its first and its last.
SYNSETS = ["n01440764", *(f"n02{n:06d}" for n in range(998)), "n15075141"]


@pytest.fixture
def tfds(monkeypatch):
    """Stands in for the package."""
    module = types.ModuleType("tensorflow_datasets")
    module.asked, module.names, module.labels = [], ("tabby_cat", "dog"), [0, 1, 0, 1]
    module.decode = types.SimpleNamespace(SkipDecoding=lambda: None)

    def data_source(name, *, split, decoders):
        module.asked.append((name, split))
        return Records(module.names, module.labels)

    module.data_source = data_source
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return module


def test_tensorflow_datasets(tfds):
    task = Task(name="pets", title="", classes=2, tfds=("pets:test", "label"))
    data, keys = found("tfds", task)
    assert tfds.asked == [("pets", "test")]
    assert data.right == {key: (n % 2,) for n, key in enumerate(keys)} and len(keys) == 4
    assert data.names == ["tabby cat", "dog"]


@pytest.mark.parametrize(
    ("task", "raised", "message"),
    [
        (Task(name="a", title=""), NoData, "TensorFlow Datasets has it not under a name"),
        (
            Task(name="a", title="", tfds=("pets:test", "breed")),
            ValueError,
            "tfds:pets:test: its feature breed has no names of classes|no column breed",
        ),
        (
            Task(name="a", title="", classes=3, tfds=("pets:test", "label")),
            ValueError,
            "tfds:pets:test: 2 class names, but this task has 3 classes",
        ),
    ],
)
def test_what_tensorflow_datasets_has_not(tfds, task, raised, message):
    with pytest.raises(raised, match=message):
        found("tfds", task)


@pytest.mark.parametrize("name", ["imagenet1k", "imagenet-a", "imagenet-r"])
def test_imagenet_of_tensorflow_datasets(tfds, name):
    """Its classes are called by numbers of WordNet, in all its sets by all 1,000."""
    which = {"imagenet1k": "imagenet"}.get(name, name.replace("-", "_"))
    tfds.names, tfds.labels = SYNSETS, list(IMAGENET_SETS[which])[::-1]
    data, keys = found("tfds", TASKS[name])
    assert data.names == imagenet_classes(which)
    assert [data.names[data.right[key][0]] for key in keys] == [
        IMAGENET_NAMES[label] for label in tfds.labels
    ]


@pytest.mark.parametrize(
    ("names", "labels", "task", "message"),
    [
        ([*SYNSETS[:999], "n15075142"], [0], "imagenet1k", "its classes are numbers of WordNet"),
        (SYNSETS, [0, 6], "imagenet-a", r"1 of 1 labels are not of the 200 classes of imagenet_a"),
        (SYNSETS, [0, 6], "imagenet1k", "998 classes have no image"),
    ],
)
def test_other_synsets(tfds, names, labels, task, message):
    tfds.names, tfds.labels = names, labels
    with pytest.raises(ValueError, match=f"^tfds:imagenet.*: {message}"):
        found("tfds", TASKS[task])


def test_folders_of_imagenet(tmp_path):
    for name in SYNSETS:
        (tmp_path / "imagenet1k" / name).mkdir(parents=True)
        (tmp_path / "imagenet1k" / name / "a.png").write_bytes(png(0))
    data, keys = found(tmp_path, TASKS["imagenet1k"])
    assert data.names == IMAGENET_NAMES
    assert data.right == {key: (SYNSETS.index(key[:9]),) for key in keys} and len(keys) == 1000
