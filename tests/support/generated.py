"""Parts of Markdown files that a script writes, between two comments."""

from pathlib import Path

BEGIN, END = "<!-- written by `make readme` -->\n", "<!-- end of what `make readme` writes -->\n"


def between(path: Path) -> str:
    """What stands between the comments of a file."""
    return path.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def write_between(path: Path, part: str) -> None:
    """Replaces it by `part`."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + part + END + after, "utf-8")
