"""The options of `evaluate --task`, the data that a task reads, and the task itself."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siglip_jax.cli.options.data import column_options
from siglip_jax.cli.options.model import positive
from siglip_jax.data.failures import SettingError

if TYPE_CHECKING:
    from siglip_jax.data import Pairs
    from siglip_jax.evaluation import Task

PROBES = ("linear-probe", "knn", "fewshot")
BY_TEXTS = ("zeroshot", "multilabel")
TASKS = ("retrieval", "multilingual", "caption-choice", *BY_TEXTS, *PROBES)
# The keys of siglip_jax.evaluation's TEMPLATES and IMAGENET_SETS, which come with jax.
TEMPLATES = ("clip_paper", "clip_best", "class_name_only")
CLASS_NAMES = ("imagenet", "imagenet_a", "imagenet_r")
# Which tasks an option is for.
OF_TASKS = {
    "labels_file": (*BY_TEXTS, *PROBES),
    "class_names": (*BY_TEXTS, *PROBES),
    "templates": BY_TEXTS,
    "template": BY_TEXTS,
    "as_written": BY_TEXTS,
    "any_caption": ("zeroshot",),
    "language_column": ("multilingual",),
    "group_column": ("caption-choice",),
    "train": PROBES,
    "seed": ("linear-probe",),
    "neighbours": ("knn",),
    "shots": ("fewshot",),
}


class TaskData(NamedTuple):
    """What a task is made of.

    Attributes:
      pairs: the images, those to learn from behind those to test with.
      captions: of each.
      tests: how many are to be tested with.
      names: of each caption its language, or of each image its group; None where not asked for.
    """

    pairs: "Pairs"
    captions: list[tuple[str, ...]]
    tests: int
    names: list[tuple[str, ...]] | None = None


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("classes: zeroshot, multilabel and the probes")
    named = group.add_mutually_exclusive_group()
    named.add_argument(
        "--labels-file",
        metavar="FILE",
        help="the classes: lines, JSON, YAML or a table, - for stdin (default: the different "
        "captions); captions may be indices into them, from 0",
    )
    named.add_argument(
        "--class-names",
        choices=CLASS_NAMES,
        help="CLIP's names of ImageNet's classes, or of the 200 of ImageNet-A or -R; captions "
        "may be ImageNet's indices, 0 to 999",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--templates", choices=TEMPLATES, help="big_vision's lists (default: clip_paper)"
    )
    which.add_argument(
        "--template",
        action="append",
        metavar="TEMPLATE",
        help="text with {} for the class, such as 'a photo of a {}.'; several are averaged",
    )
    group.add_argument(
        "--as-written",
        action="store_true",
        help="keep capitals and punctuation of classes and templates, which big_vision removes",
    )
    group.add_argument(
        "--any-caption",
        action="store_true",
        help="every caption of an image is right, as of ImageNet ReaL (default: the first)",
    )
    group = parser.add_argument_group("multilingual and caption-choice")
    group.add_argument(
        "--language-column",
        metavar="NAME",
        help="column of a table that holds the language of each caption",
    )
    group.add_argument(
        "--group-column",
        metavar="NAME",
        help="column of a table that holds the group of an image, of several that share their "
        "captions as in WinoGround (default: each is a group)",
    )
    group = parser.add_argument_group("probes: linear-probe, knn and fewshot")
    group.add_argument("--train", metavar="DATA", help="images to learn the classes from")
    group.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="decides which images choose the penalty of linear-probe (default: 0)",
    )
    group.add_argument(
        "--neighbours", type=positive, metavar="N", help="how many vote in knn (default: 20)"
    )
    group.add_argument(
        "--shots", type=positive, metavar="N", help="images of a class in fewshot (default: 10)"
    )


def check_task_options(args: argparse.Namespace) -> None:
    """A ValueError if an option is for another task, or one is missing."""
    for option, tasks in OF_TASKS.items():
        if getattr(args, option) not in (None, False) and args.task not in tasks:
            *others, last = tasks
            named = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"--{option.replace('_', '-')} is for --task {named}")
    if args.task in PROBES and args.train is None:
        raise ValueError(f"--task {args.task} needs images to learn from: --train DATA")
    if args.task != "multilingual" and len(args.data) > 1:
        raise ValueError(f"--task {args.task} takes one DATA, got {len(args.data)}")
    if args.seed is not None and args.seed < 0:
        raise ValueError(f"--seed must be 0 or more, got {args.seed}")


def read_task_data(args: argparse.Namespace) -> TaskData:
    """Opens what is named; images are read later.

    Raises:
      ValueError: as `open_pairs`; if a column does not go with the captions.
    """
    from siglip_jax.data import captions_of, open_pairs
    from siglip_jax.data.open import Joined

    columns = column_options(args)
    if args.task == "multilingual" and args.language_column is None:
        named = [_language_of(spec) for spec in args.data]
        parts = [open_pairs(spec, **columns) for _, spec in named]
        captions = [captions_of(part) for part in parts]
        names = [(name,) for (name, _), own in zip(named, captions, strict=True) for _ in own]
        everything = [each for own in captions for each in own]
        return TaskData(_joined(parts, Joined), everything, len(everything), names)
    if len(args.data) > 1:
        raise ValueError("--language-column is for one DATA; leave it out, and name languages")
    specs = [args.data[0], args.train] if args.train is not None else args.data
    parts = [open_pairs(spec, **columns) for spec in specs]
    captions = [each for part in parts for each in captions_of(part)]
    names = None
    for option in ("language_column", "group_column"):
        if column := getattr(args, option):
            names = _read_column(args.data[0], columns, option, column)
            if len(names) != len(captions):
                raise ValueError(
                    f"{args.data[0]}: {len(captions):,} images have captions, and {len(names):,} "
                    f"something in column {column}"
                )
    return TaskData(_joined(parts, Joined), captions, len(parts[0]), names)


def _joined(parts: list[Any], join: Any) -> Any:
    return parts[0] if len(parts) == 1 else join(parts)


def _read_column(
    spec: str, columns: dict[str, str | None], option: str, column: str
) -> list[tuple[str, ...]]:
    """What a column says of each image: it is read as captions are, and in their order."""
    from siglip_jax.data import captions_of, open_pairs

    try:
        return captions_of(open_pairs(spec, **(columns | {"text_column": column})))
    except SettingError as error:
        if error.setting != "text_column":
            raise
        raise SettingError(error.problem, option, error.advice, error.value) from error
    except ValueError as error:
        said = str(error).replace("no caption", f"no text in column {column}")
        raise ValueError(said) from error


def _language_of(spec: str) -> tuple[str, str]:
    found = re.fullmatch(r"([\w-]+)=(.+)", spec, re.DOTALL)
    if not found or Path(spec).exists():
        raise ValueError(
            f"{spec}: --task multilingual takes LANGUAGE=DATA for each language, such as "
            "de=german.tar, or one DATA with --language-column"
        )
    return found[1], found[2]


def make_task(args: argparse.Namespace, data: TaskData) -> "Task":
    """The task that `args` ask for.

    Raises:
      ValueError: if it does not go with the data.
    """
    from siglip_jax import evaluation

    if not data.captions:
        raise ValueError(f"{args.data[0]}: there is no image")
    if args.task == "retrieval":
        return evaluation.Retrieval(data.captions)
    if args.task == "multilingual":
        assert data.names is not None  # read_task_data asks for them
        return evaluation.Multilingual(data.captions, data.names)
    if args.task == "caption-choice":
        groups = None if data.names is None else _groups(data.names, args.group_column)
        return evaluation.CaptionChoice(data.captions, groups)
    captions, classes, source = _classes(args, data.captions)
    if args.task in BY_TEXTS:
        templates = args.template or evaluation.TEMPLATES[args.templates or "clip_paper"]
        options: dict[str, Any] = {"canonical": not args.as_written, "source": source}
        if args.task == "multilabel":
            return evaluation.MultiLabel(captions, classes, templates, **options)
        return evaluation.ZeroShot(
            captions, classes, templates, several=args.any_caption, **options
        )
    given = {name: getattr(args, name) for name in ("seed", "neighbours", "shots")}
    options = {name: value for name, value in given.items() if value is not None}
    kinds = {
        "linear-probe": evaluation.LinearProbe,
        "knn": evaluation.NeighbourProbe,
        "fewshot": evaluation.FewShot,
    }
    return kinds[args.task](captions, data.tests, classes, source=source, **options)


def _groups(names: list[tuple[str, ...]], column: str) -> list[str]:
    several = [own for own in names if len(set(own)) > 1]
    if several:
        raise ValueError(
            f"--group-column {column}: an image is of the groups "
            f"{' and '.join(several[0][:2])}; it can be of one"
        )
    return [own[0] for own in names]


def _classes(
    args: argparse.Namespace, captions: list[tuple[str, ...]]
) -> tuple[list[tuple[str, ...]], list[str] | None, str]:
    """Captions, with indices into the classes where they are numbers; the classes; what of."""
    if args.class_names is not None:
        from siglip_jax.evaluation import imagenet_classes, imagenet_labels

        named = [text for own in captions for text in own]
        if all(text.isascii() and text.isdigit() for text in named):
            # Of ImageNet-A and -R the numbers are those of the 1,000, as in TensorFlow Datasets.
            labels = iter(imagenet_labels([int(text) for text in named], args.class_names))
            captions = [tuple(str(next(labels)) for _ in own) for own in captions]
        return captions, list(imagenet_classes(args.class_names)), args.class_names
    if args.labels_file is not None:
        from siglip_jax.data.text_list import read_text_list

        return captions, read_text_list(args.labels_file), args.labels_file
    return captions, None, args.data[0]
