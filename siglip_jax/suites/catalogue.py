"""The suites: which tasks they have, how many classes, which metric, where their data lie.

Sources: CLIP_benchmark `benchmark/webdatasets.txt` and `datasets/builder.py` (VTAB+) at 48de38c;
DataComp `tasklist.yml` (classes, main metrics) and `eval_utils/` at 4a8df19; big_vision
`evaluators/proj/image_text/discriminative_classifier.py` at 0127fb6 (what the paper measures).
"""

from collections.abc import Sequence
from typing import Any

from siglip_jax.messages import choose, counted, did_you_mean
from siglip_jax.suites.task import RECALLS, Suite, Task

# big_vision's `_square875`: resize(int(res / 0.875)), then the middle.
PAPER_CROP = 0.875
_MPCR = "mean_per_class_recall"
_STAMPS = "apt-get install tuxpaint-stamps-default"
_CLIPART = "apt-get install openclipart-png"


def _recalls(name: str) -> tuple[tuple[str, str], ...]:
    return tuple(zip(RECALLS, (f"{name}_t2i", f"{name}_i2t"), strict=True))


def _acc1(name: str) -> tuple[tuple[str, str], ...]:
    return (("acc1", name),)


# fmt: off
TASKS: dict[str, Task] = {task.name: task for task in (
    Task(name="imagenet1k", title="ImageNet 1k", classes=1000, paper=_acc1("imagenet"),
         tfds=("imagenet2012:validation", "label")),
    Task(name="imagenetv2", title="ImageNet v2", classes=1000, paper=_acc1("imagenet_v2"),
         tfds=("imagenet_v2:test", "label")),
    Task(name="imagenet_real", title="ImageNet ReaL", classes=1000, paper=_acc1("imagenet_real"),
         tfds=("imagenet2012_real:validation", "real_label")),
    Task(name="imagenet_sketch", title="ImageNet Sketch", classes=1000,
         tfds=("imagenet_sketch:test", "label")),
    Task(name="imagenet-a", title="ImageNet-A", classes=200, tfds=("imagenet_a:test", "label")),
    Task(name="imagenet-r", title="ImageNet-R", classes=200, tfds=("imagenet_r:test", "label")),
    Task(name="imagenet-o", title="ImageNet-O", classes=200),
    # The paper crops and maps the classes of ImageNet in a way of its own.
    Task(name="objectnet", title="ObjectNet", classes=113, paper=_acc1("objectnet"),
         classes_of_paper=False),
    Task(name="fer2013", title="FER 2013", classes=7),
    Task(name="voc2007", title="Pascal VOC 2007", classes=20),
    Task(name="voc2007_multilabel", title="Pascal VOC 2007, all classes", kind="multilabel",
         classes=20, metric="mean_average_precision"),
    Task(name="sun397", title="SUN397", classes=397),
    Task(name="cars", title="Stanford Cars", classes=196),
    Task(name="fgvc_aircraft", title="FGVC Aircraft", classes=100, metric=_MPCR),
    Task(name="food101", title="Food-101", classes=101, tfds=("food101:validation", "label")),
    Task(name="mnist", title="MNIST", classes=10, tfds=("mnist:test", "label")),
    Task(name="stl10", title="STL-10", classes=10, tfds=("stl10:test", "label")),
    Task(name="gtsrb", title="GTSRB", classes=43),
    Task(name="country211", title="Country211", classes=211),
    Task(name="renderedsst2", title="Rendered SST2", classes=2),
    Task(name="caltech101", title="Caltech-101", classes=102, metric=_MPCR,
         path="vtab/caltech101"),
    Task(name="cifar10", title="CIFAR-10", classes=10, path="vtab/cifar10",
         tfds=("cifar10:test", "label")),
    Task(name="cifar100", title="CIFAR-100", classes=100, path="vtab/cifar100",
         tfds=("cifar100:test", "label")),
    Task(name="clevr_count_all", title="CLEVR Counts", classes=8, path="vtab/clevr_count_all"),
    Task(name="clevr_closest_object_distance", title="CLEVR Distance", classes=6,
         path="vtab/clevr_closest_object_distance"),
    Task(name="diabetic_retinopathy", title="Diabetic Retinopathy", classes=5,
         path="vtab/diabetic_retinopathy"),
    Task(name="dmlab", title="DMLab", classes=6, path="vtab/dmlab"),
    Task(name="dsprites_label_orientation", title="dSprites orientation", classes=40,
         path="vtab/dsprites_label_orientation"),
    Task(name="dsprites_label_x_position", title="dSprites x position", classes=32,
         path="vtab/dsprites_label_x_position"),
    Task(name="dtd", title="Describable Textures", classes=47, path="vtab/dtd"),
    Task(name="eurosat", title="EuroSAT", classes=10, path="vtab/eurosat"),
    Task(name="kitti_closest_vehicle_distance", title="KITTI Vehicle Distance", classes=4,
         path="vtab/kitti_closest_vehicle_distance"),
    Task(name="flowers", title="Oxford Flowers-102", classes=102, metric=_MPCR,
         path="vtab/flowers"),
    Task(name="pets", title="Oxford-IIIT Pet", classes=37, metric=_MPCR, path="vtab/pets",
         tfds=("oxford_iiit_pet:test", "label")),
    Task(name="pcam", title="PatchCamelyon", classes=2, path="vtab/pcam"),
    Task(name="resisc45", title="RESISC45", classes=45, path="vtab/resisc45"),
    Task(name="smallnorb_label_azimuth", title="SmallNORB azimuth", classes=18,
         path="vtab/smallnorb_label_azimuth"),
    Task(name="smallnorb_label_elevation", title="SmallNORB elevation", classes=9,
         path="vtab/smallnorb_label_elevation"),
    Task(name="svhn", title="SVHN", classes=10, path="vtab/svhn"),
    Task(name="flickr30k", title="Flickr", kind="retrieval", metric="mean_recall@1",
         folders=("flickr_1k_test_image_text_retrieval",), paper=_recalls("flickr")),
    Task(name="flickr8k", title="Flickr8k", kind="retrieval", metric="mean_recall@1"),
    Task(name="mscoco_captions", title="MSCOCO", kind="retrieval", metric="mean_recall@1",
         folders=("mscoco_2014_5k_test_image_text_retrieval",), paper=_recalls("coco")),
    Task(name="winogavil", title="WinoGAViL", kind="association", metric="jaccard_score_10-12"),
    Task(name="iwildcam", title="iWildCam", classes=182, metric="f1_macro", path="wilds/iwildcam"),
    Task(name="camelyon17", title="Camelyon17", classes=2, path="wilds/camelyon17"),
    Task(name="fmow", title="FMoW", classes=62, metric="acc_worst_region", path="wilds/fmow",
         group=0),
    Task(name="dollar_street", title="Dollar Street", classes=58, metric="acc_top5_wg",
         path="fairness/dollar_street", folders=("dollar_street",), group=0),
    Task(name="geode", title="GeoDE", classes=40, metric="acc_wg", path="fairness/geode",
         folders=("geode",), group=0),
    Task(name="xm3600", title="XM3600", kind="multilingual", metric="mean_recall@1",
         folders=("crossmodal3600",), paper=_recalls("xm3600")),
    Task(name="multilingual_mscoco", title="MSCOCO in several languages", kind="multilingual",
         metric="mean_recall@1", folders=("multilingual_mscoco_captions",)),
    Task(name="stamps", title="Tux Paint stamps, captions", kind="multilingual",
         metric="mean_recall@1", source="stamps", install=_STAMPS),
    Task(name="stamps_classes", title="Tux Paint stamps, folders", source="stamps",
         install=_STAMPS),
    Task(name="clipart", title="Open Clip Art, folders", source="clipart", install=_CLIPART),
    Task(name="digits", title="scikit-learn's digits", classes=10, source="digits"),
    Task(name="emoji", title="emoji of the demo", kind="multilingual", metric="mean_recall@1",
         source="emoji"),
)}
_IMAGENET = ("imagenet1k", "imagenetv2", "imagenet_real", "imagenet_sketch", "imagenet-a",
             "imagenet-r", "imagenet-o", "objectnet")
_VTAB_PLUS = (
    "imagenet1k", "imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet",
    "fer2013", "voc2007", "voc2007_multilabel", "sun397", "cars", "fgvc_aircraft", "mnist",
    "stl10", "gtsrb", "country211", "renderedsst2", "caltech101", "cifar10", "cifar100",
    "clevr_count_all", "clevr_closest_object_distance", "diabetic_retinopathy", "dmlab",
    "dsprites_label_orientation", "dsprites_label_x_position", "dtd", "eurosat",
    "kitti_closest_vehicle_distance", "flowers", "pets", "pcam", "resisc45",
    "smallnorb_label_azimuth", "smallnorb_label_elevation", "svhn",
)
_DATACOMP = (
    "imagenet1k", "caltech101", "cifar10", "cifar100", "clevr_count_all",
    "clevr_closest_object_distance", "country211", "dtd", "eurosat", "fgvc_aircraft", "food101",
    "gtsrb", "imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r",
    "kitti_closest_vehicle_distance", "mnist", "objectnet", "flowers", "pets", "voc2007", "pcam",
    "renderedsst2", "resisc45", "cars", "stl10", "sun397", "svhn", "flickr30k",
    "mscoco_captions", "winogavil", "iwildcam", "camelyon17", "fmow", "dollar_street", "geode",
)
# fmt: on


def _suite(name: str, about: str, tasks: Sequence[str], **options: Any) -> Suite:
    return Suite(name=name, about=about, tasks=tuple(TASKS[task] for task in tasks), **options)


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        _suite(
            "imagenet",
            "ImageNet and its variants",
            _IMAGENET,
            templates="clip_paper",
            crop=PAPER_CROP,
        ),
        _suite("vtab+", "CLIP_benchmark's VTAB+", _VTAB_PLUS),
        _suite("datacomp", "DataComp's 38 tasks", _DATACOMP, average="average_of_38"),
        _suite("retrieval", "captions", ("mscoco_captions", "flickr30k", "flickr8k")),
        _suite("xm3600", "captions in many languages", ("xm3600", "multilingual_mscoco")),
        _suite(
            "offline",
            "what needs no network",
            ("stamps", "stamps_classes", "clipart", "digits", "emoji"),
        ),
    )
}


def find_suite(name: str) -> Suite:
    """A suite by its name.

    Raises:
      ValueError: if there is none; names those there are, and one that is called nearly so.

    >>> find_suite("retrieval").tasks[0].title
    'MSCOCO'
    """
    return SUITES[choose("suite", name, tuple(SUITES))]


def chosen(suite: Suite, only: Sequence[str] | None) -> tuple[Task, ...]:
    """The tasks of a suite, or those of them that are named.

    Raises:
      ValueError: if one is not of the suite, is named twice, or none is.

    >>> [task.name for task in chosen(find_suite("offline"), ["digits"])]
    ['digits']
    """
    if only is None:
        return suite.tasks
    if not only:
        raise ValueError("only: name at least one task")
    names = [task.name for task in suite.tasks]
    for name in only:
        if name not in names:
            hint = did_you_mean(name, names, otherwise=f"; they are {', '.join(names)}")
            tasks = counted(len(names), "task")
            raise ValueError(f"only: none of the {tasks} of {suite.name} is {name!r}{hint}")
    return tuple(task for task in suite.tasks if task.name in only)
