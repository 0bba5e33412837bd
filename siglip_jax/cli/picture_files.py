"""The files that `IMAGES...` names: files, folders, patterns, or a list on stdin."""

import difflib
import glob
from pathlib import Path

from siglip_jax.cli.model_arguments import read_lines

# What people keep pictures in; a file named on the command line may end in anything.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".avif", ".jp2", ".ico"}
)


def picture_files(arguments: list[str]) -> list[str]:
    """Expands `arguments`, in their order; folders are searched to the bottom, sorted.

    Raises:
      ValueError: if a file is missing, a folder holds no pictures, or a pattern
        matches nothing.
    """
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = read_lines("-")
            if not lines:
                raise ValueError("expected one picture a line on standard input, got none")
            found += lines
            continue
        path = Path(argument).expanduser()
        if path.is_dir():
            inside = sorted(
                str(file)
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            if not inside:
                raise ValueError(f"{argument}: no pictures in this folder")
            found += inside
        elif path.exists() or not glob.has_magic(argument):
            found.append(str(path))
        else:
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute too
            if not matches:
                raise ValueError(f"{argument}: no file matches this pattern")
            found += matches
    return found


def near_files(path: str) -> str:
    """A hint for a file that does not exist: what is called nearly so beside it."""
    folder = Path(path).parent
    if not folder.is_dir():
        return ""
    names = [entry.name for entry in folder.iterdir()]
    near = difflib.get_close_matches(Path(path).name, names, n=1)
    return f"; did you mean {folder / near[0]}?" if near else ""
