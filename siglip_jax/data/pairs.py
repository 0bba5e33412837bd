"""From what a recipe names to a dataset of pairs."""

import difflib
import glob
import itertools
import re
from pathlib import Path

from siglip_jax.data.folder import FolderPairs
from siglip_jax.data.pair import Pairs
from siglip_jax.data.parquet import ParquetPairs
from siglip_jax.data.tars import TarPairs
from siglip_jax.data.tfds import TfdsPairs

_BRACES = re.compile(r"\{([^{}]*)\}")


def open_pairs(source: str, *, image: str | None = None, caption: str | None = None) -> Pairs:
    """Opens a dataset of pictures with captions; what it is shows in its path.

    * webdataset tars: a file, `shards-{0000..0007}.tar`, a pattern with `*`, or a folder
      of .tar files. Members up to the first dot of the name make a pair: a .jpg, .jpeg,
      .png or .webp, and a .txt with one caption a line or a .json with `caption` or
      `captions`.
    * Parquet: the same with .parquet, a row a pair: `image` as bytes, as Hugging Face's
      struct or as a path relative to the file; `caption` or `captions`, a string or a
      list of strings.
    * a folder of pictures: with `a.txt` beside `a.jpg`, one caption a line; or with a
      table captions or metadata (.csv, .tsv, .jsonl) of `file_name` and `caption`,
      `captions` or `text`.
    * `tfds:NAME` or `tfds:NAME:SPLIT` (train unless given) of TensorFlow Datasets.

    Captions and positions are read at once and held in memory, images when asked for.

    Args:
      source: path, or name after `tfds:`.
      image, caption: what the column (of tars: the extension of the image and the key
        in the .json) is called, where not as above.

    Raises:
      ValueError: if nothing is there, it is of no known format, a file is damaged, or a
        picture has no caption.
    """
    if source.startswith("tfds:"):
        return TfdsPairs(source, image, caption)
    path = Path(source).expanduser()
    files = [path] if path.exists() else _expanded(path)
    if len(files) == 1 and files[0].is_dir():
        return _open_folder(files[0], image, caption)
    kinds = {file.suffix.lower() for file in files}
    if kinds == {".tar"}:
        return TarPairs(files, image, caption, source)
    if kinds == {".parquet"}:
        return ParquetPairs(files, image, caption, source)
    if any(file.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst")) for file in files):
        raise ValueError(
            f"{source}: a compressed tar has no random access; decompress it "
            "(images do not get smaller by it)"
        )
    raise ValueError(
        f"{source}: not a dataset of a known format; expected .tar, .parquet, a folder of "
        "pictures with captions, or tfds:NAME"
    )


def _open_folder(folder: Path, image: str | None, caption: str | None) -> Pairs:
    tars, tables = sorted(folder.glob("*.tar")), sorted(folder.glob("*.parquet"))
    if tars and tables:
        raise ValueError(f"{folder}: both .tar and .parquet files; name those that you mean")
    if tars:
        return TarPairs(tars, image, caption, str(folder))
    if tables:
        return ParquetPairs(tables, image, caption, str(folder))
    return FolderPairs(folder, image, caption)


def _expanded(path: Path) -> list[Path]:
    """The files that braces and wildcards stand for, sorted within each wildcard."""
    found: list[Path] = []
    for name in without_braces(str(path)):
        if glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - absolute too
            if not matches:
                raise ValueError(f"{name}: no file matches this pattern")
            found += map(Path, matches)
        elif Path(name).exists():
            found.append(Path(name))
        else:
            raise ValueError(f"{name}: no such file or folder{_near(Path(name))}")
    return found


def without_braces(name: str) -> list[str]:
    """Every name that `{0..3}` and `{a,b}` stand for, as the shell has it.

    >>> without_braces("x-{08..10}.{tar,idx}")[:3]
    ['x-08.tar', 'x-08.idx', 'x-09.tar']
    """
    pieces = _BRACES.split(name)
    choices: list[list[str]] = []
    for number, piece in enumerate(pieces):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", piece)
        if number % 2 == 0:
            choices.append([piece])
        elif span:
            low, high = int(span[1]), int(span[2])
            choices.append([str(i).zfill(len(span[1])) for i in range(low, high + 1)])
        else:
            choices.append(piece.split(","))
    return ["".join(parts) for parts in itertools.product(*choices)]


def _near(missing: Path) -> str:
    if not missing.parent.is_dir():
        return f"; there is no folder {missing.parent}"
    names = [entry.name for entry in missing.parent.iterdir()]
    near = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.7)
    return f"; did you mean {missing.with_name(near[0])}?" if near else ""
