"""What training code puts around the names of weights, taken off: compilers, trainers, averages.

`torch.compile`, DDP, FSDP, Lightning and averages of weights (EMA) save the model's own names
behind prefixes of theirs, and beside the weights what only training needs. Prefixes of
`_ANYWHERE` and `_SURE` belong to no model; those of `_LIKELY` are also the names of parts of
other models, so they are taken off only where nothing but a SigLIP's own names comes out.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from siglip_jax.weights.reader import Header, Reader

# Around parts of a model, wherever they stand in a name.
_ANYWHERE = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
}
# Averages of weights, which are what their trainers evaluate.
AVERAGES = (
    "state_dict_ema", "ema_state_dict", "model_ema", "module_ema", "ema_model", "ema_params",
    "averaged_model", "ema",
)  # fmt: skip
# Where training loops keep the weights.
WEIGHTS = ("state_dict", "model_state_dict", "model", "module")
_SURE = {
    "module": "DDP",
    "online_model": "raw weights of an average",
    "state_dict": "a training checkpoint",
    "model_state_dict": "a training checkpoint",
}
_LIKELY = {"model": "Lightning", "net": "Lightning", "network": "Lightning"}
# What names of a SigLIP begin with, in any system.
_PLAIN = {
    "vision_model", "text_model", "logit_scale", "logit_bias", "classifier", "visual", "text",
    "blocks", "patch_embed", "pos_embed", "embeds", "norm", "fc_norm", "attn_pool", "head", "img",
    "txt", "t", "b", "embeddings", "encoder", "post_layernorm", "final_layer_norm",
}  # fmt: skip
_TRAINING = {
    "optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "opt_state", "optim",
    "lr_scheduler", "lr_schedulers", "scheduler", "scaler", "grad_scaler",
}  # fmt: skip
_COUNTERS = {"n_averaged", "initted", "step", "num_updates", "decay", "epoch", "global_step"}
_PARTS = re.compile(r"[./]")


class FileReader(Reader, Protocol):
    """A reader of one or several files."""

    @property
    def files(self) -> tuple[Path, ...]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapping:
    """What is around the names of a file.

    Attributes:
      names: the plain name of every tensor that is left, to the stored one.
      left_out: stored tensors that are no weights of the model, and what they are.
      prefixes: what was taken off, and whose it is.
    """

    names: dict[str, str]
    left_out: dict[str, str]
    prefixes: dict[str, str]


class Unwrapped:
    """An open file under the names that the model itself has (see `weights.reader.Reader`).

    Attributes:
      left_out: as of `Wrapping`.
      report: what was taken off and left out, in one line.
    """

    subtree = ""

    def __init__(self, whole: FileReader, wrapping: Wrapping, report: str) -> None:
        self.path, self.files = whole.path, whole.files
        self.left_out, self.report = wrapping.left_out, report
        self.ignored = (*whole.ignored, *wrapping.left_out)
        self.shapes: dict[str, Header] = {
            name: whole.shapes[stored] for name, stored in wrapping.names.items()
        }
        self._names, self._whole = wrapping.names, whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._whole.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; raises as the file's own reader does."""
        return self._whole.read(self._names[name])


def unwrapped(whole: FileReader, keys: tuple[str, ...] = (), *, likely: bool = True) -> FileReader:
    """The file under the model's own names; itself where nothing is around them.

    Args:
      whole: closed if this fails.
      keys: of the dictionaries that its tensors were found under; the entries beside these
        are what it ignored.
      likely: take off prefixes that may also be parts of another model.

    Raises:
      ValueError: if two tensors have one plain name, or FSDP's flat parameters are in it.
    """
    try:
        wrapping = find_wrapping(whole.shapes, whole.path, likely=likely)
    except ValueError:
        whole.close()
        raise
    if not (wrapping.prefixes or wrapping.left_out or keys):
        return whole
    return Unwrapped(whole, wrapping, _report(wrapping, keys, whole.ignored if keys else ()))


def report(reader: Reader) -> tuple[str, ...]:
    """What `unwrapped` took off and left out: a line, or none."""
    return (reader.report,) if isinstance(reader, Unwrapped) else ()


def left_out(reader: Reader) -> dict[str, str]:
    """What `unwrapped` left out; nothing of another reader."""
    return reader.left_out if isinstance(reader, Unwrapped) else {}


def find_wrapping(shapes: Mapping[str, Header], path: str, *, likely: bool = True) -> Wrapping:
    """What is around `shapes`' names, by the tables of this module.

    >>> header = Header((2,), np.dtype(np.float32))
    >>> found = find_wrapping({"module._orig_mod.visual.trunk.norm.bias": header}, "x.pt")
    >>> found.names
    {'visual.trunk.norm.bias': 'module._orig_mod.visual.trunk.norm.bias'}
    >>> found.prefixes
    {'_orig_mod': 'torch.compile', 'module': 'DDP'}
    """
    _refuse_flat(shapes, path)
    prefixes: dict[str, str] = {}
    left: dict[str, str] = {}
    plain: dict[str, str] = {}  # stored name to what is left of it
    for stored, header in shapes.items():
        parts = _PARTS.split(stored)
        if parts[0] in _TRAINING:
            left[stored] = "optimizer state"
        elif parts[-1] in _COUNTERS and len(parts) <= 2 and math.prod(header.shape) == 1:
            left[stored] = "a counter of training"
        else:
            plain[stored], found = _without(stored, _ANYWHERE)
            prefixes |= found
    while plain:
        if average := next((a for a in AVERAGES if _any_behind(a, plain.values())), None):
            plain = _keep_average(average, plain, left)
            prefixes[average] = "an average of weights"
        elif outer := _common(plain.values(), likely):
            plain = {stored: name[len(outer) + 1 :] for stored, name in plain.items()}
            prefixes[outer] = {**_SURE, **_LIKELY}[outer]
        else:
            break
    if len(set(plain.values())) < len(plain):
        twice = collections.Counter(plain.values()).most_common(1)[0][0]
        raise ValueError(f"{path} holds {twice} twice: {', '.join(_stored(twice, plain)[:3])}")
    names = {name: stored for stored, name in plain.items()}
    return Wrapping(names=names, left_out=left, prefixes=prefixes)


def _refuse_flat(names: Iterable[str], path: str) -> None:
    for name in names:
        if _PARTS.split(name)[-1] in ("_flat_param", "flat_param"):
            raise ValueError(
                f"{path} holds FSDP's flattened parameters ({name}), which do not say their own "
                "names; save it with StateDictType.FULL_STATE_DICT"
            )


def _without(name: str, table: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """`name` without the parts in `table`, and those that there were."""
    found = {part: table[part] for part in _PARTS.split(name) if part in table}
    for part in found:
        name = re.sub(rf"(?<![^./]){part}[./]", "", name)
    return name, found


def _any_behind(prefix: str, names: Iterable[str]) -> bool:
    return any(name.startswith((f"{prefix}.", f"{prefix}/")) for name in names)


def _common(names: Iterable[str], likely: bool) -> str | None:
    """The one prefix of all `names` that belongs to no model."""
    names = list(names)
    parts = {_PARTS.split(name)[0] for name in names}
    if len(parts) != 1 or (prefix := parts.pop()) not in {**_SURE, **_LIKELY}:
        return None
    inner = [_PARTS.split(name)[1:] for name in names]
    if not all(inner):
        return None
    # All of them: a model around the tower may keep it in a `model.`, beside its own parts.
    sure = prefix in _SURE or (likely and all(_begins_plain(rest) for rest in inner))
    return prefix if sure else None


def _begins_plain(parts: list[str]) -> bool:
    around = {*_SURE, *_LIKELY, *AVERAGES}
    return next((part in _PLAIN for part in parts if part not in around), False)


def _keep_average(average: str, plain: dict[str, str], left: dict[str, str]) -> dict[str, str]:
    """The averaged weights; raw ones go to `left`, and what is neither stays to be refused."""
    kept: dict[str, str] = {}
    others: dict[str, str] = {}
    for stored, name in plain.items():
        if name.startswith((f"{average}.", f"{average}/")):
            kept[stored] = name[len(average) + 1 :]
        else:
            others[stored] = name
    cores = {_core(name) for name in kept.values()}
    for stored, name in others.items():
        if _core(name) in cores:
            left[stored] = f"a raw weight beside its average ({average})"
        else:
            kept[stored] = name
    return kept


def _core(name: str) -> str:
    parts = _PARTS.split(name)
    while len(parts) > 1 and parts[0] in {**_SURE, **_LIKELY}:
        parts = parts[1:]
    return "/".join(parts)


def _stored(name: str, plain: Mapping[str, str]) -> list[str]:
    return [stored for stored, other in plain.items() if other == name]


def _report(wrapping: Wrapping, keys: tuple[str, ...], beside: tuple[str, ...]) -> str:
    said: list[str] = []
    if keys:
        said.append(f"weights under {'.'.join(keys)}")
    if wrapping.prefixes:
        prefixes = ", ".join(f"{name} ({whose})" for name, whose in wrapping.prefixes.items())
        said.append(f"names without {prefixes}")
    counts: dict[str, int] = {}
    for what in wrapping.left_out.values():
        counts[what] = counts.get(what, 0) + 1
    left = [f"{what} ({count} tensors)" for what, count in counts.items()]
    average = bool(keys) and keys[0] in AVERAGES
    left += [f"{key} (raw weights)" if average and key in WEIGHTS else key for key in beside]
    if left:
        said.append(f"left out: {', '.join(left)}")
    return "saved by training code: " + "; ".join(said)
