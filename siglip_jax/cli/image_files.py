"""The files that `IMAGES...` names: files, folders, patterns, or a list on stdin."""

import glob
from pathlib import Path

from siglip_jax.data.text_list import read_lines
from siglip_jax.messages import near_file


def image_files(arguments: list[str]) -> list[str]:
    """Expands `arguments`, in their order; folders are searched to the bottom, sorted.

    Raises:
      ValueError: if no file is there, a folder holds no images, or a pattern
        matches nothing.
    """
    from siglip_jax.data.specs import folder_images

    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = read_lines("-")
            if not lines:
                raise ValueError("expected one image a line on standard input, got none")
            found += lines
            continue
        path = Path(argument).expanduser()
        if path.is_dir():
            found += [image.where for image in folder_images(str(path))]
        elif path.exists() or not glob.has_magic(argument):
            found.append(str(path))
        else:
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute too
            if not matches:
                raise ValueError(f"{argument}: no file matches this pattern")
            found += matches
    # One missing file of several is reported when its turn comes; if none is there, now,
    # before the weights are read.
    if not any(Path(file).exists() for file in found):
        raise ValueError(f"{found[0]}: no such file{near_file(found[0])}")
    return found
