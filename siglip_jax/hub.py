"""A repository of the Hugging Face hub on this machine: the files a model needs, no more.

Through huggingface_hub, with its cache, progress bars, revisions and offline mode.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siglip_jax.locate import first_line, offline

# Configurations, in the order in which `converters.detect` looks for them, and the
# weights that go with each, the preferred ones first.
_WEIGHTS = {
    "siglip_jax.json": ("weights.safetensors", "weights.npz"),
    "open_clip_config.json": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "config.json": ("model.safetensors", "pytorch_model.bin"),
}
_SMALL = {
    *_WEIGHTS,
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
}
_FILES = (".npz", ".safetensors", ".json", ".bin", ".pt", ".pth")


def is_repository(name: str) -> bool:
    """Whether `name` looks like `owner/name` on the hub.

    >>> is_repository("timm/ViT-B-16-SigLIP"), is_repository("runs/model.npz")
    (True, False)
    """
    plain = name.removeprefix("hf-hub:")
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", plain)) and not plain.endswith(_FILES)


def needed_files(names: Iterable[str]) -> list[str]:
    """What to fetch of a repository that holds the files `names`.

    Configuration and vocabulary, and the weights in one format: safetensors if there
    are any, else PyTorch's, else big_vision's.

    Raises:
      ValueError: if there are no weights of a known format.

    >>> needed_files(["README.md", "config.json", "model.safetensors", "pytorch_model.bin"])
    ['config.json', 'model.safetensors']
    """
    there = set(names)
    for card, candidates in _WEIGHTS.items():
        for name in candidates if card in there else ():
            stem, suffix = name.rsplit(".", 1)
            shards = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}")
            found = {name} & there
            if not found and f"{name}.index.json" in there:
                found = {n for n in there if shards.fullmatch(n)} | {f"{name}.index.json"}
            if found:
                return sorted(found | (there & _SMALL))
    if npz := sorted(name for name in there if name.endswith(".npz")):
        return sorted({*npz[:1], *(there & _SMALL)})
    raise ValueError(f"no weights of a known format among {', '.join(sorted(there)[:8]) or '-'}")


def locate_repository(name: str, revision: str | None = None) -> Path:
    """The folder of a hub repository's needed files, downloaded if need be.

    Args:
      name: such as `google/siglip-base-patch16-224`.
      revision: branch, tag or commit; the main branch unless given.

    Raises:
      ValueError: if it is not on this machine and cannot be downloaded, or holds no
        weights of a known format.
    """
    import huggingface_hub

    repository = name.removeprefix("hf-hub:")
    options: dict[str, Any] = {"local_files_only": True}
    reason = "HF_HUB_OFFLINE is set"
    if not offline():
        try:
            # Once, with a limit: snapshot_download tries for half a minute without a network.
            info = huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=10)
        except Exception as error:  # huggingface_hub raises a dozen unrelated types
            reason = first_line(error)
        else:
            try:
                names = needed_files(file.rfilename for file in info.siblings or ())
            except ValueError as error:
                raise ValueError(f"{repository}: {error}") from error
            options, reason = {"allow_patterns": names}, ""
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, **options))
    except Exception as error:
        raise ValueError(
            f"the hub repository {repository} is not on this machine and could not be "
            f"downloaded ({reason or first_line(error)})"
        ) from error
