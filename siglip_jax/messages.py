"""What an error says: suggestions, near files, reasons in one line, what to install.

A message names what was expected, what came and what to do; the pieces that many messages
share are written here once.
"""

import difflib
import importlib
import importlib.metadata
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

# How alike a suggestion has to be, as `difflib` measures it, from 0 to 1.
CUTOFF = 0.6

# Of packages that are not imported by their own name.
_PACKAGES = {
    "PIL": "pillow",
    "absl": "absl-py",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}


def suggestions(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The `count` of `known` most like `name`, best first; fewer or none if they are not alike.

    Case does not matter. Of names equally alike the one that differs latest comes first.

    >>> suggestions("tf_bilinaer", ["tf_antialias", "tf_bilinear", "pil_bicubic"])
    ['tf_bilinear']
    >>> suggestions("cat", ["dog"])
    []
    """
    wanted = name.lower()
    spelled: dict[str, str] = {}
    for one in known:
        spelled.setdefault(one.lower(), one)
    near = difflib.get_close_matches(wanted, spelled, n=max(count, 8), cutoff=CUTOFF)
    near.sort(key=lambda other: _likeness(other, wanted), reverse=True)
    return [spelled[other] for other in near[:count]]


def _likeness(name: str, wanted: str) -> tuple[float, int]:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(name, wanted, strict=False))
    return round(difflib.SequenceMatcher(None, name, wanted).ratio(), 3), len(list(same))


def did_you_mean(name: str, known: Iterable[str], form: str = "{}", otherwise: str = "") -> str:
    """The end of a message about an unknown name: "; did you mean NAME?", or `otherwise`.

    Args:
      form: how the suggestion is written, such as "--{}" for an option.
      otherwise: what to say where no name is alike, such as "; there are a, b".

    >>> did_you_mean("optimiser", ["optimizer", "loss"])
    '; did you mean optimizer?'
    >>> did_you_mean("x", ["optimizer", "loss"], otherwise="; there are optimizer, loss")
    '; there are optimizer, loss'
    """
    near = suggestions(name, known)
    return f"; did you mean {form.format(near[0])}?" if near else otherwise


def choose(what: str, value: object, choices: Sequence[str]) -> str:
    """`value`, if it is one of `choices`.

    Raises:
      ValueError: if it is not; says which there are, and which is meant.

    >>> choose("store", "float61", ("float32", "float16"))
    Traceback (most recent call last):
    ValueError: store must be one of float32, float16, got 'float61'; did you mean float16?
    """
    if isinstance(value, str) and value in choices:
        return value
    hint = did_you_mean(str(value), choices)
    raise ValueError(f"{what} must be one of {', '.join(choices)}, got {value!r}{hint}")


def near_part(path: str, known: Iterable[str]) -> str | None:
    """Of names such as img/Dense_0/kernel the one that `path` is a slip of.

    Names of one tree all look alike as a whole: one part may differ, and not by much.

    >>> near_part("img/embedding/kernal", ["img/embedding/bias", "img/embedding/kernel"])
    'img/embedding/kernel'
    """
    parts = path.split("/")
    candidates: dict[str, tuple[str, str]] = {}  # name: what differs in it, and in `path`
    for name in known:
        others = name.split("/")
        if len(others) != len(parts):
            continue
        differ = [(b, a) for a, b in zip(parts, others, strict=True) if a != b]
        if len(differ) == 1:
            candidates[name] = differ[0]
    near = [name for name, (there, here) in candidates.items() if suggestions(here, [there])]
    return max(near, key=lambda name: _likeness(name, path), default=None)


def near_file(path: str | Path, names: Iterable[str] | None = None) -> str:
    """The end of a message about a file that does not exist: a file beside it of a like name.

    Args:
      names: what there is in its folder; listed if not given.

    >>> near_file("pictur.png", ["picture.png", "other.png"])
    '; did you mean picture.png?'
    >>> near_file("/nowhere/at/all.png")
    '; there is no folder /nowhere/at'
    """
    missing = Path(path)
    if names is None:
        if not missing.parent.is_dir():
            return f"; there is no folder {missing.parent}"
        names = [entry.name for entry in missing.parent.iterdir()]
    # By stem: all images of a folder end alike, which makes any two names look alike.
    stems = {Path(name).stem: name for name in names}
    near = suggestions(missing.stem, stems)
    return f"; did you mean {missing.with_name(stems[near[0]])}?" if near else ""


def reason(error: BaseException) -> str:
    """What went wrong, in one line without a full stop.

    Of a system error only what the system says: who reports it names the file.

    >>> reason(FileNotFoundError(2, "No such file or directory", "a.jpg"))
    'No such file or directory'
    >>> reason(ValueError("the header is damaged.\\nByte 7 is ..."))
    'the header is damaged'
    >>> reason(KeyError())
    'KeyError'
    """
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):  # urllib wraps what happened in angle brackets
        error = inner
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def counted(number: int, what: str, plural: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "shard"), counted(2000, "shard"), counted(0, "class", "classes")
    ('1 shard', '2,000 shards', '0 classes')
    """
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def escaped(text: str) -> str:
    r"""`text` as any file can hold it: what is no Unicode, as of file names, is written as `\x`.

    >>> escaped("caf\udce9.png"), escaped("café.png")
    ('caf\\xe9.png', 'café.png')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        # Bytes of a name that are not UTF-8 come as surrogates; others are half an emoji.
        parts = (rf"\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)
        return "".join(parts).encode("utf-8", "backslashreplace").decode()
    return text


def optional_package(
    module: str, install: str | None = None, *, name: str | None = None, why: str | None = None
) -> ModuleType:
    """A module of a package that is not always installed.

    Args:
      module: what to import.
      install: what to give to `pip install`; default: what pyproject.toml says of the package.
      name: what the message calls the package; default: what Python calls it.
      why: what needs it, as a sentence.

    >>> optional_package("no_such", "no-such-cpu")
    Traceback (most recent call last):
    ValueError: no_such is not installed; pip install no-such-cpu

    Raises:
      ValueError: one line that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        because = f", and {why}" if why else ""
        install = install or requirement(package)
        raise ValueError(
            f"{name or package} is not installed{because}; pip install {install}"
        ) from error


def not_installed(error: ImportError) -> str | None:
    """What to say of a failed import; None if what is missing is a module of our own.

    >>> not_installed(ModuleNotFoundError("No module named 'no_such'", name="no_such.part"))
    'no_such is not installed; pip install no_such'
    """
    # jax says in words of its own which package it misses.
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    package = (cause.name or "").partition(".")[0]
    if package in ("", "siglip_jax"):
        return None
    return f"{package} is not installed; pip install {requirement(package)}"


def requirement(package: str) -> str:
    """What to give to `pip install` for an imported package, in the versions that we work with.

    No extra of ours, because the name of this package on an index is not ours to promise.

    >>> requirement("no_such")
    'no_such'
    """
    wanted = re.sub("[-_.]+", "-", _PACKAGES.get(package, package)).lower()
    try:
        stated = importlib.metadata.requires("siglip-jax") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
        stated = []
    for line in stated:
        needed = line.partition(";")[0].strip()
        found = re.match(r"[\w.-]+", needed)
        if found and re.sub("[-_.]+", "-", found[0]).lower() == wanted:
            return needed if needed == found[0] else f'"{needed}"'
    return _PACKAGES.get(package, package)
