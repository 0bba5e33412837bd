"""PEFT adapters: low-rank changes (LoRA) of another system's weights, merged while reading.

A folder with `adapter_config.json` holds no model but what was trained of one. Its names are
those of the library that it was trained in, whatever format the base is in here: each change is
rearranged by the same steps as the weight that it belongs to, and added to it in float32, as
PEFT's `merge_and_unload` does (0.21).
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from siglip_jax.classifier import Classifier, Pooling, default_labels
from siglip_jax.config import Siglip, Tower
from siglip_jax.errors import ModelError, legible
from siglip_jax.messages import near_part
from siglip_jax.weights.reader import FLOATS, Header, Reader
from siglip_jax.weights.staging import staged

from . import open_clip, timm, transformers
from .big_vision import Part
from .checkpoint import OpenCheckpoint
from .files import find_weights, open_file
from .format import safetensors_in
from .json_file import Settings, read_settings, write_json
from .loop_form import LoopForm
from .rules import Step
from .wrappers import FileReader

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_ROOT = "base_model.model."
# Settings that change what a merge is not, or that are read here. Any other that is set is
# another kind of adapter.
_KNOWN = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# Beginnings that leave the base as it is; others change it before training.
_PLAIN_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")
_LAYERS: tuple[tuple[str, Pooling], ...] = (
    (transformers.CLASSIFIER, "mean"),
    (timm.CLASSIFIER, "map"),
)
# Of the names of one tower in the whole models of other systems; of what is of both, too.
_BEGINNINGS: dict[Tower, tuple[str, ...]] = {
    "image": ("vision_model.", "visual.", "logit_"),
    "text": ("text_model.", "text.", "logit_"),
}
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B)(\.weight)?")


class _Change(NamedTuple):
    """What is added to one weight: the names of its factors, and what they are scaled by."""

    first: str  # A (rank, in, ...)
    second: str  # B (out, rank, ...)
    scale: float
    embedding: bool

    def delta(self, stored: Reader, shape: tuple[int, ...]) -> np.ndarray:
        """In the shape of their weight, float32."""
        a, b = (stored.read(name).astype(np.float32) for name in (self.first, self.second))
        product = b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1)
        product = product.T if self.embedding else product
        return product.reshape(shape) * np.float32(self.scale)


class _Adapter(NamedTuple):
    """An adapter under the names of the library that it is for, without `base_model.model.`."""

    stored: FileReader
    changes: dict[str, _Change]  # by the name of their weight
    replaced: dict[str, str]  # weights that were trained whole, to their stored names
    rank: int

    def only(self, tower: Tower | None) -> Self:
        """What of it is not of the other tower, or of both."""
        if tower is None:
            return self
        other = _BEGINNINGS["text" if tower == "image" else "image"]
        return self._replace(
            changes={name: c for name, c in self.changes.items() if not name.startswith(other)},
            replaced={name: s for name, s in self.replaced.items() if not name.startswith(other)},
        )


class _Merged:
    """The base in loop form, with the changes of an adapter (see `weights.reader.Reader`)."""

    subtree = ""

    def __init__(self, base: OpenCheckpoint, adapter: _Adapter, steps: list[Step]) -> None:
        self._base, self._adapter = LoopForm(base.reader), adapter
        self.path, self.ignored = base.reader.path, base.reader.ignored
        self.shapes: dict[str, Header] = self._base.shapes
        self._steps = {
            name: step
            for step in steps
            if step.theirs in adapter.changes or step.theirs in adapter.replaced
            for name in step.ours
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._adapter.stored.close()
        self._base.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`, merged; raises as the files' own readers do."""
        if name not in self._steps:
            return self._base.read(name)
        step, dtype = self._steps[name], self.shapes[name].dtype
        stored = self._adapter.stored
        if step.theirs in self._adapter.replaced:
            whole = stored.read(self._adapter.replaced[step.theirs]).reshape(step.shape)
            return step.inverse(whole, name).astype(dtype)
        delta = self._adapter.changes[step.theirs].delta(stored, step.shape)
        exact = np.result_type(dtype, np.float32)
        return (self._base.read(name).astype(exact) + step.inverse(delta, name)).astype(dtype)


def is_adapter(path: Path) -> bool:
    """Whether a local path is an adapter: its folder, or its file of weights."""
    folder = path.parent if path.name in WEIGHTS else path
    return (folder / CONFIG).is_file()


def without_base(path: Path) -> ModelError:
    """The error about an adapter whose base is not given."""
    folder = path.parent if path.name in WEIGHTS else path
    card = read_settings(folder / CONFIG)
    base = card.get("base_model_name_or_path")
    return ModelError(
        f"{path} is no model but a PEFT adapter ({card.get('peft_type', 'of no kind')}) of "
        f"{base or 'a model that it does not name'}",
        needs="base",
        advice=f"pass base={base or 'its model'!r}",
        path=path,
    )


def merge(base: OpenCheckpoint, path: Path, tower: Tower | None = None) -> OpenCheckpoint:
    """The base with an adapter merged into it; closes the base if that fails.

    Args:
      base: of the tower alone, where one is asked for.
      path: the adapter's folder, or its file of weights.
      tower: the only one to read; what the adapter changes of the other is left out.

    Raises:
      ValueError: if it is of a kind that is not merged, damaged, or of another model.
    """
    try:
        with legible(path):
            return _merge(base, path.parent if path.name in WEIGHTS else path, tower)
    except BaseException:
        base.close()
        raise


def _merge(base: OpenCheckpoint, folder: Path, tower: Tower | None) -> OpenCheckpoint:
    card = read_settings(folder / CONFIG)
    _check_kind(card)
    stored = open_file(find_weights(folder, WEIGHTS))
    try:
        adapter = _read(stored, card, _begin(card)).only(tower)
        classifier, adapter = _classifier(base, adapter, folder)
        if classifier is not None and base.tower is None:
            base = dataclasses.replace(
                base,
                config=base.config.only("image"),
                reader=Part(base.reader, lambda name: name.startswith("img/")),
            )
        steps = _steps(base, adapter, folder)
    except BaseException:
        stored.close()
        raise
    trained = len(adapter.changes) + len(adapter.replaced)
    return dataclasses.replace(
        base,
        path=folder,
        reader=_Merged(base, adapter, steps),
        files=(*base.files, folder / CONFIG, *stored.files),
        given_name=f"{base.name} with {folder.resolve().name}",
        classifier=classifier or base.classifier,
        reports=(
            *base.reports,
            f"a LoRA adapter of rank {adapter.rank} ({folder.resolve().name}, {trained} weights) "
            f"is merged into {base.name}",
        ),
    )


def _check_kind(card: Settings) -> None:
    kind = card.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{card.where}: an adapter of kind {kind}; only LORA is merged")
    if unknown := sorted(key for key in set(card.values) - _KNOWN if card.values[key]):
        raise ValueError(
            f"{card.where}: {unknown[0]} is {card.get(unknown[0])!r}, another kind of LoRA than "
            "is merged here; merge it with PEFT's merge_and_unload and save the whole model"
        )
    beginning = card.get("init_lora_weights", True)
    if beginning not in _PLAIN_BEGINNINGS:
        raise ValueError(
            f"{card.where}: init_lora_weights is {beginning!r}, which changes the base model too; "
            "merge it with PEFT's merge_and_unload and save the whole model"
        )


def _begin(card: Settings) -> str:
    """What a tower alone lacks of the names of its whole model."""
    kind = str(card.part("auto_mapping").get("base_model_class", ""))
    return {"VisionModel": "vision_model.", "TextModel": "text_model."}.get(
        kind.removeprefix("Siglip").removeprefix("2"), ""
    )


def _read(stored: FileReader, card: Settings, begin: str) -> _Adapter:
    factors: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    for name, header in stored.shapes.items():
        if header.dtype not in FLOATS:
            raise ValueError(f"{stored.path}: {name} is {header.dtype}, expected a float")
        plain = name.removeprefix(_ROOT).replace(".base_layer.", ".")
        if begin and not plain.startswith(begin):
            plain = begin + plain
        if found := _LORA.fullmatch(plain):
            factors.setdefault(found["module"], {})[found["part"]] = name
        elif "lora_" in plain:
            raise ValueError(f"{stored.path}: {name} is another kind of LoRA than is merged here")
        else:
            replaced[plain] = name
    changes: dict[str, _Change] = {}
    for module, parts in factors.items():
        changes[f"{module}.weight"] = _change(stored, card, module, parts)
    if not changes:
        raise ValueError(f"{stored.path} holds no LoRA: there is no tensor with lora_A in its name")
    ranks = [stored.shapes[change.first].shape[0] for change in changes.values()]
    return _Adapter(stored, changes, replaced, max(ranks))


def _change(stored: FileReader, card: Settings, module: str, parts: Mapping[str, str]) -> _Change:
    embedding = "embedding_A" in parts
    first, second = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    if set(parts) != {first, second}:
        raise ValueError(f"{stored.path}: {module} has only lora_{', lora_'.join(sorted(parts))}")
    rank = int(_pattern(card, "rank_pattern", module, card.number("r", 8)))
    alpha = float(_pattern(card, "alpha_pattern", module, card.get("lora_alpha", 8)))
    a, b = stored.shapes[parts[first]].shape, stored.shapes[parts[second]].shape
    if a[0] != rank or b[1] != rank or any(n != 1 for n in b[2:]):
        raise ValueError(
            f"{stored.path}: the factors of {module} have shapes {a} and {b}, expected rank {rank}"
        )
    scale = alpha / (math.sqrt(rank) if card.get("use_rslora") else rank)
    return _Change(parts[first], parts[second], scale, embedding)


def _pattern(card: Settings, key: str, module: str, default: Any) -> Any:
    """A setting that may differ by module, found as PEFT does (`get_pattern_key`)."""
    table = card.part(key).values
    found = next((p for p in table if re.match(rf"(.*\.)?({p})$", module)), None)
    return default if found is None else table[found]


def _classifier(
    base: OpenCheckpoint, adapter: _Adapter, folder: Path
) -> tuple[Classifier | None, _Adapter]:
    """The classifier that was trained whole beside the LoRA, and the adapter without it."""
    for layer, pooling in _LAYERS:
        names = [f"{layer}.weight", f"{layer}.bias"]
        if not all(name in adapter.replaced for name in names):
            continue
        kernel, bias = (np.array(adapter.stored.read(adapter.replaced[n])) for n in names)
        known = base.classifier.labels if base.classifier else ()
        labels = known if len(known) == len(bias) else default_labels(len(bias))
        activation = base.classifier.activation if base.classifier else "softmax"
        head = Classifier(
            labels=labels,
            kernel=np.ascontiguousarray(kernel.T),
            bias=bias,
            pooling=pooling,
            activation=activation,
        )
        others = {plain: name for plain, name in adapter.replaced.items() if plain not in names}
        return head, adapter._replace(replaced=others)
    return None, adapter


def _steps(base: OpenCheckpoint, adapter: _Adapter, folder: Path) -> list[Step]:
    """The steps to the names of the library that the adapter is for.

    Raises:
      ValueError: if the base has not every weight that was trained, in its shape.
    """
    wanted = [*adapter.changes, *adapter.replaced]
    tables: list[list[Step]] = [transformers.steps(base.config, base.tower)]
    if base.tower is None:
        tables.append(open_clip.steps(base.config))
    if base.tower != "text":
        tables.append(timm.steps(base.config))
    known = [{step.theirs: step for step in table if step.ours} for table in tables]
    best = max(known, key=lambda table: sum(name in table for name in wanted))
    if missing := [name for name in wanted if name not in best]:
        near = near_part(missing[0], list(best))
        raise ValueError(
            f"{folder}: {missing[0]} is not in {base.name}"
            + (f" (near: {near})" if near else "")
            + f"; {len(missing)} of {len(wanted)} trained weights are of another model"
        )
    for name in wanted:
        _check_shape(adapter, name, best[name].shape, folder, base.name)
    return list(best.values())


def _check_shape(
    adapter: _Adapter, name: str, shape: tuple[int, ...], folder: Path, base: str
) -> None:
    shapes = adapter.stored.shapes
    if name in adapter.replaced:
        found = shapes[adapter.replaced[name]].shape
    else:
        change = adapter.changes[name]
        a, b = shapes[change.first].shape, shapes[change.second].shape
        found = (a[1], b[0]) if change.embedding else (b[0], *a[1:])
    if found != shape and not (found in ((), (1,)) and shape in ((), (1,))):
        raise ValueError(f"{folder}: {name} is of shape {found}, in {base} it is {shape}")


def write_adapter(
    folder: Path,
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    config: Siglip,
    *,
    rank: int,
    alpha: float,
    base: str | None,
) -> None:
    """Writes a LoRA adapter of transformers' model, as PEFT loads it; whole or not at all.

    Args:
      factors: of each kernel, under big_vision's names in loop form: (inputs, rank) and
        (rank, outputs).
      base: repository of the model that it is of.
    """
    theirs = {step.ours[0]: step.theirs for step in transformers.steps(config) if step.ours}
    tensors: dict[str, np.ndarray] = {}
    for name, (a, b) in factors.items():
        module = theirs[name].removesuffix(".weight")
        tensors[f"{_ROOT}{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"{_ROOT}{module}.lora_B.weight"] = np.ascontiguousarray(b.T)
    card: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "target_modules": [theirs[name].removesuffix(".weight") for name in factors],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    with staged(folder) as partial:
        headers = {name: Header(t.shape, t.dtype) for name, t in tensors.items()}
        safetensors_in(WEIGHTS[0])(partial, headers, iter(tensors.items()))
        write_json(partial / CONFIG, card)


def adapter_files(names: set[str]) -> list[str]:
    """What to fetch of a repository that is an adapter; none if it is no adapter."""
    found = [name for name in WEIGHTS if name in names]
    return [CONFIG, *found[:1]] if CONFIG in names and found else []
