"""The folder of a small suite, with tasks in the layouts that people have."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
from pair_files import png, write_tar

from siglip_jax.suites import Suite, Task

NAMES = ["a dog", "a cat", "a red bus", "the sea", "a tree", "bread"]
TEMPLATES = ["my {c}", "{c}"]
COUNT = 18
# Of image n; not all classes have as many.
TARGETS = [0, 1, 2, 3, 4, 5, 0, 0, 0, 1, 2, 3, 4, 5, 5, 5, 2, 1]
REGIONS = [n % 3 for n in range(COUNT)]


def tiny(*names, **options):
    """A suite of the tasks that `write` makes, or of some of them."""
    tasks = (
        Task(name="tars", title="Tars", classes=6, path="vtab/tars", group=0, metric="acc_wg"),
        Task(name="folders", title="Folders", classes=6, metric="mean_per_class_recall"),
        Task(name="several", title="Several", kind="multilabel", metric="mean_average_precision"),
        Task(name="captions", title="Captions", kind="retrieval", metric="mean_recall@1"),
        Task(name="spoken", title="Spoken", kind="multilingual", metric="mean_recall@1"),
    )
    chosen = tuple(task for task in tasks if not names or task.name in names)
    return Suite(name="tiny", about="for tests", tasks=chosen, **options)


def npy(values):
    stream = io.BytesIO()
    np.save(stream, np.asarray(values))
    return stream.getvalue()


def describe(folder, names=NAMES, templates=TEMPLATES):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    return folder


def wds(folder, samples, shards=3):
    """CLIP_benchmark's layout; samples are dicts of endings and contents."""
    test = folder / "test"
    test.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        own = [
            (f"s{n:04d}.{ending}", data)
            for n, sample in enumerate(samples)
            if n % shards == shard
            for ending, data in sample.items()
        ]
        write_tar(test / f"{shard}.tar", own)
    (test / "nshards.txt").write_text(f"{shards}\n")
    return folder


def tars(folder, targets=TARGETS):
    samples = [
        {"cls": str(target).encode(), "npy": npy([REGIONS[n], 7]), "png": png(n)}
        for n, target in enumerate(targets)
    ]
    return wds(describe(folder), samples)


def folders(folder, targets=TARGETS):
    for n, target in enumerate(targets):
        inside = folder / f"c{target}"
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"{n:04d}.png").write_bytes(png(n))
    return describe(folder)


def spoken(folder):
    """XM3600's own layout; the last image has no German caption."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for n in range(6):
        (folder / f"images/{n:x}f.png").write_bytes(png(n))
        line = {"image/key": f"{n:x}f", "image/locale": "en"}
        line["en"] = {"caption": [f"dog {n}", f"a dog {n}"]}
        if n < 5:
            line["de"] = {"caption": [f"Hund {n}"]}
        lines.append(json.dumps(line))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write(root):
    """All tasks of `tiny`."""
    tars(root / "wds_vtab-tars_test")
    folders(root / "folders")
    samples = [
        {"npy": npy([t == target or (n + t) % 5 == 0 for t in range(6)]), "png": png(n)}
        for n, target in enumerate(TARGETS)
    ]
    wds(describe(root / "wds_several"), samples, 1)
    samples = [{"png": png(n), "txt": f"dog {n}\ncat {n}".encode()} for n in range(7)]
    wds(root / "wds_captions", samples, 2)
    spoken(root / "spoken")
    return root


def labelled_table(label="label"):
    """As Hugging Face's `datasets` writes one: images as structs, names of classes beside them."""
    images = [{"bytes": png(n), "path": None} for n in range(COUNT)]
    noted = {"info": {"features": {label: {"names": NAMES, "_type": "ClassLabel"}}}}
    table = pyarrow.table({"image": images, label: TARGETS})
    return table.replace_schema_metadata({"huggingface": json.dumps(noted)})
