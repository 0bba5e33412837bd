"""All formats: which one a path is in, opening it, and what of a repository it needs."""

import dataclasses
import fnmatch
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from siglip_jax.config import Siglip, Tower
from siglip_jax.errors import ModelError, legible
from siglip_jax.weights.big_vision import open_big_vision

from . import big_vision, open_clip, siglip_folder, timm, transformers
from .adapters import adapter_files, is_adapter, without_base
from .checkpoint import TOKENIZER_JSON, VOCABULARY_FILES, OpenCheckpoint
from .files import open_file
from .format import Format
from .shards import INDEX

# In the order in which a folder is looked at: the surest configuration goes first.
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        siglip_folder.FORMAT,
        open_clip.FORMAT,
        transformers.FORMAT,
        timm.FORMAT,
        big_vision.NPZ,
        big_vision.TENSORSTORE,
    )
}


def format_named(to: str) -> Format:
    """The format of that name.

    Raises:
      ValueError: if there is none.
    """
    if to not in FORMATS:
        raise ValueError(f"unknown format {to!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[to]


def detect(path: str | Path) -> str:
    """The format of a local file or folder, one of `FORMATS`.

    Raises:
      ValueError: if it is none of them.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file() and not path.name.endswith("-LAST"):
        return _of_file(path)
    if not path.is_file() and not path.with_name(f"{path.name}-LAST").is_file():
        open_big_vision(path).close()  # the error with near names
    return big_vision.TENSORSTORE.name


def open_checkpoint(
    path: str | Path,
    *,
    config: Siglip | None = None,
    res: int | None = None,
    tower: Tower | None = None,
) -> OpenCheckpoint:
    """Opens weights of any format under big_vision's names; only headers are read.

    Args:
      path: a file or a folder.
      config: the architecture, where the files do not say it: weights without the
        configuration beside them state neither heads nor image size.
      res: image side in pixels of a big_vision checkpoint that is no released one.
      tower: the only one to read; the other may be missing, or another model's.

    Raises:
      ValueError: if it is no SigLIP, damaged, or does not say enough; the message
        names what is missing.
    """
    path = Path(path)
    with legible(path):
        return _opened(path, config, res, tower)


def _opened(
    path: Path, config: Siglip | None, res: int | None, tower: Tower | None
) -> OpenCheckpoint:
    if is_adapter(path):
        raise without_base(path)
    form = FORMATS[detect(path)]
    if form.config is None:
        return form.open(path, config=config, res=res, tower=tower)
    if path.is_dir():
        return form.open(path, config=config, tower=tower)
    if config is None and not (path.parent / form.config).is_file():
        raise ModelError(
            f"{path} does not say how many heads the model has, nor its image size, and there is "
            f"no {form.config} beside it",
            needs="config",
            advice="pass config, of a model like it for instance: siglip_jax.find(NAME).config",
            path=path,
            card=form.config,
        )
    return dataclasses.replace(
        form.open(path.parent, config=config, weights=path, tower=tower), path=path
    )


def needed_files(names: Iterable[str]) -> list[str]:
    """What to fetch of a repository that holds the files `names`.

    Configurations and vocabulary, and the weights in the file that would be opened.

    Raises:
      ValueError: if there are no weights of a known format.

    >>> needed_files(["README.md", "config.json", "model.safetensors", "pytorch_model.bin"])
    ['config.json', 'model.safetensors']
    """
    there = set(names)
    if found := adapter_files(there):
        return found
    small = {form.config for form in FORMATS.values()} | set(VOCABULARY_FILES)
    small |= {name for form in FORMATS.values() for name in form.others}
    sentencepiece = there & set(VOCABULARY_FILES) - {TOKENIZER_JSON}
    for form in FORMATS.values():
        for pattern in form.weights if form.config in {None, *there} else ():
            if found := _weights(there, pattern):
                # Beside a sentencepiece file it is the same vocabulary again, of up to 34 MB.
                unread = {TOKENIZER_JSON} if sentencepiece or not form.vocabulary else set[str]()
                return sorted(found | (there & small - unread))
    raise ValueError(f"no weights of a known format among {', '.join(sorted(there)[:8]) or '-'}")


def _weights(there: set[str], pattern: str) -> set[str]:
    if found := sorted(fnmatch.filter(there, pattern)):
        return set(found[:1])
    index = f"{pattern}{INDEX}"
    if index not in there:
        return set()
    stem, suffix = pattern.rsplit(".", 1)
    shards = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}")
    return {name for name in there if shards.fullmatch(name)} | {index}


def _of_folder(path: Path) -> str:
    for form in FORMATS.values():
        if form.recognises(path):
            return form.name
    if any(path.glob("*.distcp")):
        raise ValueError(
            f"{path} is a sharded checkpoint of torch.distributed (FSDP), which is not read; make "
            "one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
            f"{path} weights.pt"
        )
    # There may be a checkpoint that is damaged; else the error says what there is.
    try:
        open_big_vision(path).close()
    except ValueError as error:
        if any(path.glob("*-LAST")) or any(path.glob("params~*")):
            raise
        names = sorted(entry.name for entry in path.iterdir())[:6]
        raise ValueError(
            f"{path} is no big_vision checkpoint, nor a folder of transformers, open_clip, timm "
            f"or siglip_jax: it holds {', '.join(names) or 'nothing'}"
        ) from error
    return big_vision.TENSORSTORE.name


def _is_big_visions(path: Path) -> bool:
    """By the names in the archive alone: its headers are read once, when it is opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(re.search(r"(^|/)(img|txt)/", name) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return True  # its reader says what is wrong


def _of_file(path: Path) -> str:
    npz = path.suffix == big_vision.NPZ.ending
    if not npz and (path.parent / siglip_folder.CONFIG).is_file():
        return siglip_folder.FORMAT.name
    if npz and _is_big_visions(path):
        return big_vision.NPZ.name
    with open_file(path) as reader:
        names = list(reader.shapes)
    for form in FORMATS.values():
        if form.tensors and any(re.match(form.tensors, name) for name in names):
            return form.name
    if npz:
        return big_vision.NPZ.name  # its error says what a model of big_vision holds
    what = f"it holds {', '.join(names[:3])}, ..." if names else "it holds no tensors"
    raise ValueError(f"{path} is not the weights of a SigLIP of any known system: {what}")
