"""What images, texts and keys are called in files: endings and columns, once for all formats."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from siglip_jax.data.failures import SettingError
from siglip_jax.messages import did_you_mean, suggestions

# The order decides where a tar has an image twice.
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2")
IMAGE_ENDINGS += ("jpe", "jfif", "ppm", "pgm", "pbm", "ico", "heic", "heif", "jxl", "mpo")
TEXT_ENDINGS = ("txt", "json")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUET_ENDINGS = (".parquet", ".pq")
# What `datasets` writes with save_to_disk.
ARROW_ENDINGS = (".arrow",)
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
# A table of this name in a folder of images says which there are, and their captions.
CAPTION_TABLES = tuple(
    f"{name}{ending}" for name in ("captions", "metadata") for ending in (".csv", ".tsv", ".jsonl")
)

# What lies beside the images of CLIP_benchmark's data sets and describes them.
DESCRIPTIONS = (
    "classnames.txt",
    "zeroshot_classification_templates.txt",
    "dataset_type.txt",
    "nshards.txt",
)

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "file_name", "path", "url")
TEXT_COLUMNS = ("caption", "captions", "text")
KEY_COLUMNS = ("key", "__key__")

Only = Literal["images", "texts", "pairs"]


class Wanted(NamedTuple):
    """What is read of a dataset.

    Attributes:
      image, text, key: names of columns, where they are not the usual ones.
      only: "images" or "texts", to leave the other unread; "pairs" if there must be both;
        None for what there is.
      separator: between the fields of a .csv or .tsv, where it is not the usual one.
      both: a table must have columns of images and of texts.
      keep: columns that are carried along (`siglip_jax.data.kept`).
    """

    image: str | None = None
    text: str | None = None
    key: str | None = None
    only: Only | None = None
    separator: str | None = None
    both: bool = False
    keep: tuple[str, ...] = ()

    def identity(self) -> list[str | None]:
        """What an identity says of it; what came later, only where it is used."""
        return [*self[:4], *([self.separator] if self.separator else [])]


class Columns:
    """Which columns hold the image, the text and the key; None for what is not read.

    Args:
      source: what messages call the file.
      names: its columns.
      wanted: the names that are given; a usual name is looked for otherwise.

    Raises:
      SettingError: if a given column is missing, or neither images nor texts are found.
    """

    def __init__(self, source: str, names: Iterable[str], wanted: Wanted) -> None:
        names = list(names)

        def choose(what: str, given: str | None, usual: Sequence[str], must: bool) -> str | None:
            if not given and not must and not set(usual) & set(names):
                return None
            return choose_column(source, names, what, given, usual)

        only, self.image, self.text = wanted.only, None, None
        self.key = choose("key", wanted.key, KEY_COLUMNS, False)
        if only != "texts":
            either = only is None and not wanted.both
            texts = either and (wanted.text or set(TEXT_COLUMNS) & set(names))
            self.image = choose("image", wanted.image, IMAGE_COLUMNS, not texts)
        if only != "images":
            self.text = choose("text", wanted.text, TEXT_COLUMNS, wanted.both or only is not None)

    def pair(self) -> tuple[str, str]:
        """The columns of the image and of the text, where there must be both."""
        return str(self.image), str(self.text)

    def used(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.key, self.image, self.text) if name]


def choose_column(
    source: object, columns: Iterable[str], what: str, given: str | None, usual: Sequence[str]
) -> str:
    """The column that holds `what`: the given one, or the first usual one that there is.

    Raises:
      SettingError: if there is none; names the columns, and one that is called nearly so.
    """
    columns, wanted = list(columns), [given] if given else usual
    for name in wanted:
        if name in columns:
            return name
    near = next((found[0] for name in wanted if (found := suggestions(name, columns))), None)
    raise SettingError(
        f"{source}: no column {' or '.join(wanted)}; the columns are {', '.join(columns)}",
        f"{what}_column",
        "did you mean {}?" if near else "name it with {}",
        near,
    )


def refuse_absent(source: object, columns: Sequence[str], name: str) -> None:
    """Raises a ValueError if there is no column `name`; says which there are."""
    if name not in columns:
        near = did_you_mean(name, columns, otherwise=f"; the columns are {', '.join(columns)}")
        raise ValueError(f"{source}: no column {name}{near}")


def noted_classes(schema: Any, columns: Sequence[str]) -> list[str] | None:
    """The names of classes that Hugging Face's `datasets` notes in a schema of pyarrow.

    Args:
      columns: the first of them that has any is taken.
    """
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"]
        found = [features[name].get("names") for name in columns if name in features]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return next((names for names in found if names), None)


def text_captions(value: Any) -> tuple[str, ...]:
    """The captions in a string or a list of strings; blank ones are left out.

    >>> text_captions([" a dog", ""]), text_captions(None)
    (('a dog',), ())
    """
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(v.strip() for v in values if isinstance(v, str) and v.strip())


def text_endings(wanted: Wanted) -> tuple[str, ...]:
    """Where texts beside an image are looked for: a key can be named of a .json only.

    >>> [text_endings(wanted) for wanted in (Wanted(), Wanted(text="alt"), Wanted(only="images"))]
    [('txt', 'json'), ('json',), ()]
    """
    if wanted.only == "images":
        return ()
    return ("json",) if wanted.text else TEXT_ENDINGS


def captions_beside(files: Mapping[str, bytes | None], text: str | None) -> tuple[str, ...]:
    """The captions in what lies beside an image: a .txt, one a line, or else a .json.

    Args:
      files: ending to content, of those of `text_endings` that there are.
      text: key in the .json, of a string or a list; otherwise the first usual one.

    >>> captions_beside({"json": b'{"caption": "a dog"}'}, None)
    ('a dog',)

    Raises:
      ValueError: if it is not UTF-8, or no JSON object.
    """
    try:
        if "txt" in files:
            return text_captions((files["txt"] or b"").decode().splitlines())
        content = json.loads(files.get("json") or b"{}")
        if not isinstance(content, dict):
            raise ValueError(f"the .json must hold an object, got {type(content).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its text cannot be read: {error}") from error
    names = [text] if text else TEXT_COLUMNS
    return next((found for n in names if (found := text_captions(content.get(n)))), ())


def refuse_missing(source: object, what: str, keys: Sequence[str], total: int) -> None:
    """Raises a ValueError that counts `keys`, the pairs without `what`, if there are any."""
    if keys:
        first = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        raise ValueError(
            f"{source}: {len(keys):,} of {total:,} pairs have no {what}: {first}; "
            "add what is missing or leave these out"
        )
