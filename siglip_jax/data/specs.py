"""What the words of a command line stand for: files, and of which kind."""

import itertools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from siglip_jax.data.columns import (
    ARROW_ENDINGS,
    CAPTION_TABLES,
    DESCRIPTIONS,
    IMAGE_ENDINGS,
    PARQUET_ENDINGS,
    TABLE_ENDINGS,
    TAR_ENDINGS,
)
from siglip_jax.data.failures import public
from siglip_jax.data.storage import (
    Stored,
    is_pattern,
    is_remote,
    look_up,
    matches,
    open_binary,
    size,
    without_braces,
)
from siglip_jax.messages import counted
from siglip_jax.preprocessing.signatures import HEAD, image_format

# What a folder is searched for; a file that is named may end in anything that is no other kind.
IMAGES = tuple(f".{ending}" for ending in IMAGE_ENDINGS)
_ENDINGS = {
    "tars": TAR_ENDINGS,
    "parquet": PARQUET_ENDINGS,
    "arrow": ARROW_ENDINGS,
    "tables": TABLE_ENDINGS,
    "list": (".txt",),
}
_NOUNS = {
    "images": ("image",),
    "tars": ("tar",),
    "parquet": ("parquet", "parquet"),
    "arrow": ("arrow file",),
    "tables": ("table",),
    "list": ("list",),
}
_REFUSED = (".zst", ".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".json", ".npy", ".npz")
_REFUSED += (".tfrecord", ".array_record", ".pdf", ".py", ".html")


class Named(NamedTuple):
    """A file of a kind: images, tars, parquet, arrow, tables, texts or tfds."""

    kind: str
    file: Stored


def expanded(specs: Sequence[str], *, captioned: bool = False) -> list[Named]:
    """The files that `specs` name, in their order, those of a folder or pattern sorted.

    Of one spec they are named relative to its folder, of several as they were given.

    Args:
      captioned: of a folder of images with a table of captions, name the table.

    Raises:
      ValueError: if something is not there, of no known kind, or of several kinds.
    """
    found: list[Named] = []
    for spec in specs:
        found += _one(spec, len(specs) == 1, captioned)
    seen: set[str] = set()
    for kind, file in found:
        # An image may be there twice, and is given a number; rows of a table would clash.
        if kind != "images" and file.name in seen:
            raise ValueError(f"{file.name} is named twice")
        seen.add(file.name)
    return found


def _one(spec: str, alone: bool, captioned: bool) -> list[Named]:
    if spec.startswith("tfds:"):
        return [Named("tfds", Stored(spec, spec))]
    if spec == "-":
        return _listed(spec, sys.stdin.buffer)
    texts = spec.startswith("texts:")
    found: list[Named] = []
    pattern = spec.removeprefix("texts:") if texts else spec
    names = [pattern] if _there(pattern) else without_braces(pattern)
    braces, alone = alone and len(names) > 1, alone and len(names) == 1
    for name in names:
        several = not _there(name) and is_pattern(name)
        looked_up = matches(name) if several else look_up(name)
        if isinstance(looked_up, Stored):
            file = looked_up._replace(name=looked_up.name if alone else public(name))
            kind = "texts" if texts else kind_of(name)
            if kind is None:
                raise ValueError(f"{public(name)}: {_WHAT}")
            if kind == "list":
                with open_binary(file.where) as opened:
                    found += _listed(name, opened)
                continue
            if kind == "images":
                file = file._replace(name=public(name))
            found.append(Named(kind, file))
            continue
        table = None if several or texts or not captioned else _captions_among(looked_up)
        if not alone:
            looked_up = [f._replace(name=public(f.where)) for f in looked_up]
            table = table and table._replace(name=public(table.where))
        if texts:
            found += [Named("texts", f) for f in looked_up]
        else:
            found += _of_one_kind(public(name), looked_up, table)
    if braces:  # relative to the last folder that they share
        # By letters, for commonpath takes one of the slashes of https://.
        letters = os.path.commonprefix([public(name) for name in names])  # noqa: RUF071
        shared = letters.rpartition("/")[0] + "/"
        return [
            n._replace(file=n.file._replace(name=n.file.name.removeprefix(shared))) for n in found
        ]
    return found


_WHAT = (
    "not of a known kind; expected images, .tar, .parquet, .arrow, .csv, .tsv, .jsonl, a .txt of "
    "one path a line, texts:FILE or tfds:NAME"
)


def kind_of(name: str) -> str | None:
    """The kind of a file that is named by itself; None if it is no input.

    >>> kind_of("a.tar.gz"), kind_of("a.JPG"), kind_of("scan_0001"), kind_of("a.tar.zst")
    ('tars', 'images', 'images', None)
    """
    name = name.partition("?")[0].lower() if is_remote(name) else name.lower()
    kind = next((k for k, endings in _ENDINGS.items() if name.endswith(endings)), None)
    return kind or (None if name.endswith(_REFUSED) else "images")


def _there(spec: str) -> bool:
    """Whether a local file or folder has just this name, wildcards and braces included."""
    return not is_remote(spec) and size(spec) is not None


def _captions_among(files: Sequence[Stored]) -> Stored | None:
    """The table of captions of a folder, not of those inside it."""
    tables = {file.name: file for file in files if file.name in CAPTION_TABLES}
    return next((tables[name] for name in CAPTION_TABLES if name in tables), None)


def folder_images(folder: str) -> list[Stored]:
    """The images in a local folder, to the bottom, sorted; a warning says what is left out.

    Raises:
      ValueError: if there are none.
    """
    files = look_up(folder)
    sorted_out = _sorted_out(files if isinstance(files, list) else [])
    if not sorted_out["images"]:
        what = _left_out(folder, sorted_out)
        raise ValueError(f"{folder}: no images in this folder{what and f' ({what})'}")
    _warn_of_left_out(folder, sorted_out)
    return sorted_out["images"]


def _sorted_out(files: Sequence[Stored]) -> dict[str, list[Stored]]:
    """What a folder or a pattern holds, by kind; "other" is of no kind, "hidden" is not looked at.

    An image is what has the ending of one; of local files without a known ending also what
    begins as one. Hidden are names that begin with a dot, and what is in folders of such names.
    """
    kinds: dict[str, list[Stored]] = {
        kind: []
        for kind in ("images", "tars", "parquet", "arrow", "tables", "list", "other", "hidden")
    }
    for file in files:
        kind = kind_of(file.where)
        if any(part.startswith(".") for part in file.name.split("/")):
            kind = "hidden"
        elif kind == "images" and not file.where.lower().endswith(IMAGES):
            kind = "images" if _begins_as_image(file.where) else "other"
        kinds[kind or "other"].append(file)
    return kinds


def _begins_as_image(where: str) -> bool:
    if is_remote(where):
        return False
    try:
        with open_binary(where) as opened:
            return image_format(opened.read(HEAD)) is not None
    except (OSError, ValueError):
        return False


def _left_out(spec: str, kinds: dict[str, list[Stored]]) -> str:
    """What of a folder of images is left out, counted by ending; captions are not."""
    stems = {file.where.rpartition(".")[0] for file in kinds["images"]}
    left = [
        file
        for kind in ("other", "tables", "list")
        for file in kinds[kind]
        if file.where.rpartition(".")[0] not in stems and not _describes(file.name)
    ]
    counts = Counter(Path(file.name).suffix.lower() or "without ending" for file in left)
    parts = [f"{count:,} {ending}" for ending, count in counts.most_common(5)]
    parts += ["..."] if len(counts) > 5 else []
    parts += [f"{len(kinds['hidden']):,} hidden"] if kinds["hidden"] else []
    return ", ".join(parts)


def _describes(name: str) -> bool:
    """Whether a file says something of the images beside it, captions in a language included."""
    tables = name.startswith("captions-") and name.endswith(TABLE_ENDINGS)
    return name in CAPTION_TABLES or name in DESCRIPTIONS or tables


def _warn_of_left_out(spec: str, kinds: dict[str, list[Stored]]) -> None:
    if what := _left_out(spec, kinds):
        warnings.warn(f"{spec}: what is no image is left out: {what}", stacklevel=2)


def _of_one_kind(spec: str, files: Sequence[Stored], table: Stored | None) -> list[Named]:
    """The images, tars, Parquet or Arrow files among what a folder or a pattern holds."""
    sorted_out = _sorted_out(files)
    kinds = {kind: sorted_out[kind] for kind in ("images", "tars", "parquet", "arrow")}
    others = {kind: sorted_out[kind] for kind in ("tables", "list")}
    present = [kind for kind, own in kinds.items() if own]
    if not present and is_pattern(spec):
        kinds, present = others, [kind for kind, own in others.items() if own]
    if len(present) > 1:
        counts = " and ".join(counted(len(kinds[kind]), *_NOUNS[kind]) for kind in present)
        raise ValueError(f"{spec}: {counts} are in it; name those that you mean, such as by *.tar")
    if not present:
        what = "the folder is empty" if not files else f"none of the {len(files):,} files is one"
        if files and (left := _left_out(spec, sorted_out)):
            what += f" ({left})"
        raise ValueError(f"{spec}: no images, .tar, .parquet or .arrow in it; {what}")
    if table and present == ["images"]:
        return [Named("tables", table)]
    if present == ["images"]:
        _warn_of_left_out(spec, sorted_out)
    if present == ["list"]:
        return [n for f in kinds["list"] for n in _listed(f.name, open_binary(f.where))]
    return [Named(present[0], file) for file in kinds[present[0]]]


def _listed(name: str, lines: Iterator[bytes]) -> list[Named]:
    """The images of a list, a path or URL a line, relative to the working folder."""
    spoken = "standard input" if name == "-" else name
    try:
        paths = [text for line in lines if (text := line.decode("utf-8").strip("\ufeff \t\r\n"))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{spoken}: not UTF-8 text") from error
    if not paths:
        raise ValueError(f"{spoken}: expected one image a line, got none")
    files = [Stored(public(p), p, None if is_remote(p) else size(p)) for p in paths]
    # One missing file of several is reported when its turn comes; if none is there, now.
    first = list(itertools.islice(files, 1000))
    if all(not is_remote(file.where) and file.size is None for file in first):
        raise ValueError(
            f"{spoken}: {paths[0]!r} is no file, nor are those after it; a list has one path a "
            f"line (for texts to embed: texts:{name})"
        )
    return [Named("images", file) for file in files]
