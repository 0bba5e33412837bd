"""Data that need no network: Debian's packages, where installed, and what comes with Python.

`tuxpaint-stamps-default` (GPL-2) has drawings and photographs with captions in many languages,
`openclipart-png` (public domain) drawings in folders. Neither is part of this package.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from siglip_jax.data.item import Item, fingerprint
from siglip_jax.data.open import open_items
from siglip_jax.suites.layouts import NoData
from siglip_jax.suites.task import Task
from siglip_jax.suites.task_data import Captions, Classes, Items

# Those that most stamps have a caption in, as Tux Paint calls them.
LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "ko", "nl", "ru", "zh_CN")
_STAMPS = ("tuxpaint/stamps", "usr/share/tuxpaint/stamps", "stamps", ".")
_CLIPART = ("openclipart/png", "usr/share/openclipart/png", "png")
# Folders of stamps that are no things: letters, flags, signs.
_NO_THINGS = ("symbols",)
# Folders of clip art that say nothing of what is drawn.
_NO_KIND = ("special", "unsorted")
_LEAST = 5  # images of a class
_SAID = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?(?:@\w+)?)\.utf8=(.*)")


def offline_data(task: Task, root: str) -> Classes | Captions:
    """The data of a task of the suite `offline`.

    Raises:
      NoData: if what they are in is not installed; says how to get it.
    """
    if task.source == "digits":
        return _digits()
    if task.source == "emoji":
        return _emoji()
    places, inside = (_STAMPS, "animals") if task.source == "stamps" else (_CLIPART, "animals")
    folder = _found(root, places, inside)
    if folder is None:
        raise NoData(f"not below {root}; {task.install}, and give /usr/share")
    if task.source == "clipart":
        return _folders(folder, _NO_KIND)
    return _folders(folder, _NO_THINGS) if task.kind == "zeroshot" else _stamps(folder)


def _found(root: str, places: tuple[str, ...], inside: str) -> Path | None:
    base = Path(root).expanduser()
    return next((base / place for place in places if (base / place / inside).is_dir()), None)


def _stamps(folder: Path) -> Captions:
    """Every stamp that is no symbol, with the captions beside it, in `LANGUAGES`."""
    captions: dict[str, dict[str, tuple[str, ...]]] = {language: {} for language in LANGUAGES}
    items = []
    for path in sorted(folder.rglob("*.png")):
        key = path.relative_to(folder).as_posix()
        text = path.with_suffix(".txt")
        if key.split("/")[0] in _NO_THINGS or not text.is_file():
            continue
        spoken = _spoken(text.read_text("utf-8", errors="replace"))
        if "en" not in spoken:
            continue
        items.append(Item(key, str(path)))
        for language in LANGUAGES:
            if language in spoken:
                captions[language][key] = (spoken[language],)
    if not items:
        raise ValueError(f"{folder}: none of its images has a caption")
    identity = fingerprint("stamps", [(item.key, _size(item.image)) for item in items])
    return Captions(
        images=Items(items, identity),
        captions={language: own for language, own in captions.items() if own},
    )


def _spoken(content: str) -> dict[str, str]:
    """The captions of a stamp: the first line is English, the others name a language.

    >>> _spoken("A cat.\\nde.utf8=Eine Katze.\\nfr.utf8=\\n")
    {'en': 'A cat.', 'de': 'Eine Katze.'}
    """
    first, *rest = content.splitlines() or [""]
    found = {"en": first.strip()}
    for line in rest:
        match = _SAID.match(line)
        if match:
            found[match[1]] = match[2].strip()
    return {language: text for language, text in found.items() if text}


def _folders(folder: Path, left_out: tuple[str, ...]) -> Classes:
    """The folders at the top are the classes; those of few images are left out."""
    paths: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).parts[0]
        if name not in left_out and not path.is_dir() and path.parent != folder:
            paths.setdefault(name, []).append(path)
    names = sorted(name for name, own in paths.items() if len(own) >= _LEAST)
    items, right = [], {}
    for number, name in enumerate(names):
        for path in paths[name]:
            items.append(Item(path.relative_to(folder).as_posix(), str(path)))
            right[items[-1].key] = (number,)
    identity = fingerprint("folders", [(item.key, _size(item.image)) for item in items])
    spoken = [name.replace("_", " ") for name in names]
    found = Classes(
        images=Items(items, identity),
        right=right,
        names=spoken,
        templates=["a picture of {}."],
    )
    found.check(str(folder), None)
    return found


def _size(path: object) -> int:
    return Path(str(path)).stat().st_size


def _digits() -> Classes:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged, black on white."""
    import io

    from PIL import Image
    from sklearn.datasets import load_digits

    digits: Any = load_digits()  # ships with scikit-learn
    items, right = [], {}
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels = (255 - image * 255 / 16).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(stream, "PNG")
        items.append(Item(f"{number:04d}", stream.getvalue()))
        right[items[-1].key] = (int(target),)
    content = hashlib.sha256(digits.images.tobytes()).hexdigest()[:16]
    return Classes(
        images=Items(items, fingerprint("digits", content)),
        right=right,
        names=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        templates=["a photo of the number {}."],
    )


def _emoji() -> Captions:
    """The pictures of `siglip-jax demo`, which the bundled model has not seen."""
    folder = Path(__file__).parents[1] / "emoji"
    pictures = json.loads((folder / "demo.json").read_text("utf-8"))["pictures"]
    captions: dict[str, dict[str, tuple[str, ...]]] = {}
    for picture in pictures:
        for language, name in picture["names"].items():
            key = Path(picture["file"]).name
            captions.setdefault(language, {})[key] = (name,)
    images = open_items([str(folder / "pictures")], only="images")
    return Captions(images=images, captions=captions)
