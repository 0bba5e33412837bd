"""From a task and the folder of a suite to its data, in the layouts that people have.

In the folder each task has one of its own, called by any of `Task.candidates`:

    wds_vtab-pets/test/nshards.txt, 0.tar, 1.tar ..   webdataset, of CLIP_benchmark and DataComp:
    wds_vtab-pets/classnames.txt                      a .cls (or .npy) or a .txt beside each image
    wds_vtab-pets/zeroshot_classification_templates.txt
    pets/CLASS/image.jpg                              class folders, sorted
    pets/*.parquet                                    Hugging Face's: image, and label or caption
    pets/data-00000-of-00001.arrow                    the same, as `save_to_disk` writes it
    pets/captions.jsonl                               XM3600's own, or any captions

or it is `tfds`. Local, or a URL such as hf://datasets/clip-benchmark.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siglip_jax.data.failures import public
from siglip_jax.data.item import Valued
from siglip_jax.data.open import open_items, open_pairs
from siglip_jax.data.storage import is_remote, joined, local, look_up, read_if_there
from siglip_jax.messages import near_file
from siglip_jax.suites.synsets import named
from siglip_jax.suites.task import Task
from siglip_jax.suites.task_data import (
    Captions,
    Classes,
    PairImages,
    array_of,
    class_indices,
)

NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
_LABELS = ("label", "cls", "labels", "fine_label", "class")
_SPLITS = ("test", "validation", "val")


class NoData(Exception):
    """A task's data are not there; the message says what was looked for."""


def check_root(root: str) -> None:
    """Raises a ValueError if there is no such folder at all; of one elsewhere tasks will say."""
    if root != "tfds" and not is_remote(root) and not Path(local(root)).is_dir():
        raise ValueError(f"{public(root)}: no such folder{near_file(local(root))}")


def task_data(task: Task, root: str) -> Classes | Captions:
    """Opens the data of a task.

    Raises:
      NoData: if they are not there.
      ValueError: one line: if they cannot be read or do not fit together.
    """
    if task.source:
        from siglip_jax.suites.offline import offline_data

        return offline_data(task, root)
    if root == "tfds":
        return _tfds(task)
    folder = task_folder(task, root)
    if task.kind == "multilingual":
        return _multilingual(folder)
    if task.kind == "retrieval":
        pairs = open_pairs(_spec(folder))
        captions = {pairs.key(i): pairs.captions(i) for i in range(len(pairs))}
        return Captions(images=PairImages(pairs), captions={"en": captions})
    remedy = f"write their names into {NAMES}, one a line, in the order of the classes"
    found = named(_classes(task, folder), task, public(folder), remedy)
    found.check(public(folder), task.classes)
    return found


def task_folder(task: Task, root: str) -> str:
    """The folder of a task below that of the suite.

    Raises:
      NoData: if there is none.
    """
    for name in task.candidates():
        folder = joined(root, name)
        if is_remote(root):
            if read_if_there(f"{folder}/test/nshards.txt") is not None:
                return folder
        elif Path(local(folder)).is_dir():
            return folder
    names = task.candidates()
    raise NoData(f"no folder {names[0]} in {public(root)}, nor {', '.join(names[1:4])} ..")


def _spec(folder: str) -> str:
    """What `open_items` opens: the tars of the split that is there, or the folder."""
    for split in _SPLITS:
        inside = f"{folder}/{split}"
        count = read_if_there(f"{inside}/nshards.txt")
        if count is not None:
            return _tars(inside, count)
        if not is_remote(folder) and Path(local(inside)).is_dir():
            return inside
    return folder


def _tars(folder: str, count: bytes) -> str:
    """The tars of a split, which must all be there."""
    where = public(folder)
    try:
        number = int(count)
    except ValueError:
        raise ValueError(f"{where}/nshards.txt: expected a number, got {count[:20]!r}") from None
    if number < 1:
        raise ValueError(f"{where}/nshards.txt: expected at least 1 tar, got {number}")
    if not is_remote(folder):
        missing = [n for n in range(number) if not Path(local(f"{folder}/{n}.tar")).is_file()]
        if missing:
            raise ValueError(
                f"{where}: nshards.txt says {number:,} tars, but {len(missing):,} are not there, "
                f"such as {missing[0]}.tar"
            )
    # Braces of one name would not be expanded.
    return f"{folder}/{{0..{number - 1}}}.tar" if number > 1 else f"{folder}/0.tar"


def _classes(task: Task, folder: str) -> Classes:
    spec = _spec(folder)
    images = open_items([spec], only="images")
    names, templates = _lines(folder, NAMES), _lines(folder, TEMPLATES)
    templates = templates and [template.replace("{c}", "{}") for template in templates]
    if not isinstance(images, Valued):
        return _class_folders(folder, spec, images, names, templates)
    beside = _LABELS if not spec.endswith(".tar") else ("cls",)
    if task.kind == "multilabel" and spec.endswith(".tar"):
        beside = ("npy",)
    values = _first_there(images, beside, spec)
    right = {key: class_indices(value, f"{public(folder)}: {key}") for key, value in values}
    if task.kind != "multilabel":
        right = {key: indices for key, indices in right.items() if indices}
    names = names or _own_names(folder, images)
    if names is None:
        raise ValueError(
            f"{public(folder)}: there is no {NAMES}: write one, a name a line, in the order of "
            "the indices"
        )
    groups = None
    if task.group is not None:
        groups = {
            key: int(array_of(value, key).reshape(-1)[task.group])
            for key, value in images.values("npy")
            if value
        }
    return Classes(images=images, right=right, names=names, templates=templates, groups=groups)


def _first_there(images: Valued, names: Sequence[str], spec: str) -> list[tuple[str, Any]]:
    """The values under the first of `names` that the data have."""
    failure: ValueError | None = None
    for name in names:
        try:
            found = list(images.values(name))
        except ValueError as error:
            failure = failure or error
            continue
        if any(value is not None for _, value in found):
            return found
    raise failure or ValueError(
        f"{public(spec)}: no image has a class; expected a .{names[0]} beside each"
    )


def _own_names(folder: str, images: Valued) -> list[str] | None:
    """Names of classes that the files themselves have, as Hugging Face's do."""
    names = getattr(images, "class_names", None)
    return names(_LABELS) if names else None


def _class_folders(
    folder: str, spec: str, images: Any, names: list[str] | None, templates: list[str] | None
) -> Classes:
    """root/CLASS/image.jpg: the classes are the folders, sorted; the names may be in a file."""
    where = public(folder)
    keys = [item.key for shard in range(len(images.shards())) for item in images.read(shard)]
    flat = [key for key in keys if "/" not in key]
    if flat:
        raise ValueError(
            f"{where}: {counted_images(len(flat))} in no folder of a class, such as {flat[0]}; "
            "expected CLASS/image.jpg"
        )
    there = {key.partition("/")[0] for key in keys}
    if not is_remote(folder):
        # A folder without an image is a class without one, which is an error and not skipped.
        there |= {p.name for p in Path(local(spec)).iterdir() if p.is_dir() and p.name[0] != "."}
    folders = sorted(there)
    if names is not None and len(names) != len(folders):
        raise ValueError(
            f"{where}: {NAMES} has {len(names):,} names, but there are {len(folders):,} folders "
            "of classes"
        )
    index = {name: number for number, name in enumerate(folders)}
    right = {key: (index[key.partition("/")[0]],) for key in keys}
    return Classes(images=images, right=right, names=names or folders, templates=templates)


def counted_images(count: int) -> str:
    return f"{count:,} image{' is' if count == 1 else 's are'}"


def _lines(folder: str, name: str) -> list[str] | None:
    """The lines of a text file of a folder, stripped; None if there is none."""
    content = read_if_there(f"{folder}/{name}")
    if content is None:
        return None
    try:
        return [line.strip() for line in content.decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{public(folder)}/{name}: not UTF-8 text") from None


def _multilingual(folder: str) -> Captions:
    """XM3600's own layout, or a table of captions for each language: `captions-de.csv`."""
    where, inside = public(folder), f"{folder}/xm3600"
    own = inside if _is_folder(inside) else folder
    content = read_if_there(f"{own}/captions.jsonl")
    images = open_items([f"{own}/images" if _is_folder(f"{own}/images") else own], only="images")
    keys = [item.key for shard in range(len(images.shards())) for item in images.read(shard)]
    stems = {Path(key).stem: key for key in keys}
    if content is not None:
        return Captions(images=images, captions=_crossmodal(content, stems, where))
    captions: dict[str, dict[str, tuple[str, ...]]] = {}
    files = look_up(own)
    for file in files if isinstance(files, list) else []:
        found = re.fullmatch(r"captions[-_]([\w@-]+)\.(?:csv|tsv|jsonl)", file.name)
        if found:
            pairs = open_pairs(file.where)
            captions[found[1]] = {
                _known(pairs.key(i), stems, where): pairs.captions(i) for i in range(len(pairs))
            }
    if not captions:
        raise NoData(f"no captions.jsonl and no captions-LANGUAGE.csv in {where}")
    return Captions(images=images, captions=captions)


def _crossmodal(
    content: bytes, stems: dict[str, str], where: str
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The captions of XM3600 as it is published, by language and key of the image."""
    captions: dict[str, dict[str, tuple[str, ...]]] = {}
    for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            name = str(row["image/key"])
            spoken = {
                language: tuple(value["caption"])
                for language, value in row.items()
                if isinstance(value, dict) and value.get("caption")
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where}: captions.jsonl: line {number}: {error}") from error
        for language, texts in spoken.items():
            captions.setdefault(language, {})[_known(name, stems, where)] = texts
    return dict(sorted(captions.items()))


def _known(name: str, stems: dict[str, str], where: str) -> str:
    """The key of an image that captions name."""
    stem = Path(name).stem
    if stem not in stems:
        raise ValueError(f"{where}: there are captions of {name}, but no such image")
    return stems[stem]


def _is_folder(where: str) -> bool:
    return not is_remote(where) and Path(local(where)).is_dir()


def _tfds(task: Task) -> Classes:
    if task.tfds is None:
        raise NoData("TensorFlow Datasets has it not under a name that is known here")
    name, feature = task.tfds
    images: Any = open_items([f"tfds:{name}"], only="images")
    right = {key: class_indices(value, key) for key, value in images.values(feature)}
    names = images.class_names([feature])
    if not names:
        raise ValueError(f"tfds:{name}: its feature {feature} has no names of classes")
    found = Classes(
        images=images,
        right={key: own for key, own in right.items() if own},
        names=[each.replace("_", " ") for each in names],
    )
    found = named(found, task, f"tfds:{name}", "measure it from a folder with a classnames.txt")
    found.check(f"tfds:{name}", task.classes)
    return found
