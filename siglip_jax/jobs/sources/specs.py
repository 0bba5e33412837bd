"""What the words of a command line stand for: files, and of which kind."""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from siglip_jax.data.pairs import without_braces
from siglip_jax.jobs.sources import parquet, tables, tars
from siglip_jax.jobs.sources.storage import (
    Stored,
    is_remote,
    look_up,
    matches,
    open_binary,
    size,
)

# What people keep pictures in; a file that is named may end in anything that is no other kind.
PICTURES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".avif", ".jp2", ".ico"}
)
_ENDINGS = {
    "tars": tars.ENDINGS,
    "parquet": parquet.ENDINGS,
    "tables": tables.ENDINGS,
    "list": (".txt",),
}
_REFUSED = (".zst", ".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".json", ".arrow", ".npy", ".npz")
_REFUSED += (".tfrecord", ".array_record", ".pdf", ".py", ".html")


class Named(NamedTuple):
    """A file of a kind: pictures, tars, parquet, tables, texts or tfds."""

    kind: str
    file: Stored


def expanded(specs: Sequence[str]) -> list[Named]:
    """The files that `specs` name, in their order, those of a folder or pattern sorted.

    Of one spec they are named relative to its folder, of several as they were given.

    Raises:
      ValueError: if something is not there, of no known kind, or of several kinds.
    """
    found: list[Named] = []
    for spec in specs:
        found += _one(spec, alone=len(specs) == 1)
    seen: set[str] = set()
    for kind, file in found:
        # A picture may be there twice, by two names or with a number; its rows would clash.
        if kind != "pictures" and file.name in seen:
            raise ValueError(f"{file.name} is named twice")
        seen.add(file.name)
    return found


def _one(spec: str, alone: bool) -> list[Named]:
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
        several = not _there(name) and any(c in name for c in "*?[")
        looked_up = matches(name) if several else look_up(name)
        if isinstance(looked_up, Stored):
            file = looked_up._replace(name=looked_up.name if alone else name)
            kind = "texts" if texts else kind_of(name)
            if kind is None:
                raise ValueError(f"{name}: {_WHAT}")
            if kind == "list":
                with open_binary(file.where) as opened:
                    found += _listed(name, opened)
                continue
            if kind == "pictures":
                file = file._replace(name=name)
            found.append(Named(kind, file))
            continue
        if not alone:
            looked_up = [f._replace(name=f.where) for f in looked_up]
        found += [Named("texts", f) for f in looked_up] if texts else _of_one_kind(name, looked_up)
    if braces:  # relative to the last folder that they share
        # By letters, for commonpath takes one of the slashes of https://.
        letters = os.path.commonprefix(names)  # noqa: RUF071
        shared = letters.rpartition("/")[0] + "/"
        return [
            n._replace(file=n.file._replace(name=n.file.name.removeprefix(shared))) for n in found
        ]
    return found


_WHAT = (
    "not of a known kind; expected pictures, .tar, .parquet, .csv, .tsv, .jsonl, a .txt of "
    "one path a line, texts:FILE or tfds:NAME"
)


def kind_of(name: str) -> str | None:
    """The kind of a file that is named by itself; None if it is no input.

    >>> kind_of("a.tar.gz"), kind_of("a.JPG"), kind_of("scan_0001"), kind_of("a.tar.zst")
    ('tars', 'pictures', 'pictures', None)
    """
    name = name.partition("?")[0].lower() if is_remote(name) else name.lower()
    kind = next((k for k, endings in _ENDINGS.items() if name.endswith(endings)), None)
    return kind or (None if name.endswith(_REFUSED) else "pictures")


def _there(spec: str) -> bool:
    """Whether a local file or folder has just this name, wildcards and braces included."""
    return not is_remote(spec) and size(spec) is not None


def _of_one_kind(spec: str, files: Sequence[Stored]) -> list[Named]:
    """The pictures, tars or Parquet files among what a folder or a pattern holds."""
    kinds: dict[str, list[Stored]] = {"pictures": [], "tars": [], "parquet": []}
    others: dict[str, list[Stored]] = {"tables": [], "list": []}
    for file in files:
        kind = kind_of(file.where)
        picture = file.where.lower().endswith(tuple(PICTURES))
        if kind in kinds and (kind != "pictures" or picture):
            kinds[kind].append(file)
        elif kind in others:
            others[kind].append(file)
    present = [kind for kind, own in kinds.items() if own]
    if not present and any(c in spec for c in "*?["):
        kinds, present = others, [kind for kind, own in others.items() if own]
    if len(present) > 1:
        counts = " and ".join(f"{len(kinds[kind]):,} {kind}" for kind in present)
        raise ValueError(f"{spec}: {counts} are in it; name those that you mean, such as by *.tar")
    if not present:
        what = "the folder is empty" if not files else f"none of the {len(files):,} files is one"
        raise ValueError(f"{spec}: no pictures, .tar or .parquet in it; {what}")
    if present == ["list"]:
        return [n for f in kinds["list"] for n in _listed(f.name, open_binary(f.where))]
    return [Named(present[0], file) for file in kinds[present[0]]]


def _listed(name: str, lines: Iterator[bytes]) -> list[Named]:
    """The pictures of a list, a path or URL a line, relative to the working folder."""
    spoken = "standard input" if name == "-" else name
    try:
        paths = [text for line in lines if (text := line.decode("utf-8").strip("\ufeff \t\r\n"))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{spoken}: not UTF-8 text") from error
    if not paths:
        raise ValueError(f"{spoken}: expected one picture a line, got none")
    files = [Stored(path, path, None if is_remote(path) else size(path)) for path in paths]
    # One missing file of several is reported when its turn comes; if none is there, now.
    first = list(itertools.islice(files, 1000))
    if all(not is_remote(file.where) and file.size is None for file in first):
        raise ValueError(
            f"{spoken}: {paths[0]!r} is no file, nor are those after it; a list has one path a "
            f"line (for texts to embed: texts:{name})"
        )
    return [Named("pictures", file) for file in files]
