"""The layouts that people have, read as one."""

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from pair_files import png
from suite_folders import NAMES, REGIONS, TARGETS, describe, folders, labelled_table, tars, wds

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
        ("synsets", "its folders are numbers of WordNet, such as n01440764"),
    ],
)
def test_what_does_not_fit(tmp_path, how, message):
    broken(tmp_path / "things", how)
    with pytest.raises(ValueError, match=message):
        found(tmp_path)
