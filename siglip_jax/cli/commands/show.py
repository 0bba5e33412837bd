"""Show one checkpoint: architecture, names, preprocessing, where its files are from.

MODEL is any name of a released checkpoint, or a local file or folder, of which
only headers are read. With --tree every parameter and its shape is listed: of a
name as big_vision's model has them, of a file as they are stored.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax import checkpoints
from siglip_jax.cli.description import describe, describe_config
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.config import Siglip

if TYPE_CHECKING:
    from siglip_jax.weights.reader import Reader

NAME = "show"
HELP = "show one checkpoint, by name or from a file"
USAGE = "%(prog)s MODEL [--tree] [--json]"
_OTHERS = (".safetensors", ".bin", ".pt", ".pth")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name, file or folder of a model")
    parser.add_argument("--tree", action="store_true", help="every parameter and its shape")
    add_json_argument(parser, "the same")


def run(args: argparse.Namespace) -> int:
    facts, tree = _facts(args.model)
    if args.tree:
        facts["tree"] = tree
    if args.json:
        print_json(facts)
        return 0
    tree = facts.pop("tree", {})
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):{width}}  {_text(value)}")
    width = max(map(len, tree), default=0)
    for name, leaf in tree.items():
        print(f"{name:{width}}  {leaf}")
    return 0


def _facts(model: str) -> tuple[dict[str, Any], dict[str, str]]:
    from siglip_jax.weights.architecture import config_from_shapes
    from siglip_jax.weights.layout import parameter_shapes

    path = Path(model).expanduser()
    if not path.exists() and not path.with_name(f"{path.name}-LAST").is_file():
        try:
            checkpoint = checkpoints.find(model)
        except ValueError:
            if not _looks_like_a_path(model):
                raise
        else:
            shapes = parameter_shapes(checkpoint.config)
            return describe(checkpoint), {name: str(shape) for name, shape in shapes.items()}
    reader, config = _open(path)
    with reader:
        headers, ignored = reader.shapes, reader.ignored
    facts: dict[str, Any] = {"path": reader.path}
    facts["parameters"] = sum(math.prod(header.shape) for header in headers.values())
    facts["bytes"] = sum(header.nbytes for header in headers.values())
    facts["dtypes"] = ", ".join(sorted({str(header.dtype) for header in headers.values()}))
    facts["ignored"] = list(ignored)
    try:
        shapes = {name: header.shape for name, header in headers.items()}
        config = config or config_from_shapes(shapes)
        released = [c.name for c in checkpoints.CHECKPOINTS if c.config == config]
        facts |= {"released_as": released[0] if released else None, **describe_config(config)}
    except ValueError as error:
        facts["architecture"] = str(error)
    tree = {name: f"{h.shape} {h.dtype}" for name, h in sorted(headers.items())}
    return facts, tree


def _open(path: Path) -> tuple["Reader", Siglip | None]:
    """What `siglip_jax.load` reads from `path`, and the architecture that other files state."""
    from siglip_jax.converters import open_checkpoint
    from siglip_jax.weights.source import open_source

    cards = ("siglip_jax.json", "open_clip_config.json", "config.json")
    if path.suffix in _OTHERS or any((path / card).is_file() for card in cards):
        source = open_checkpoint(path)
        return source.reader, source.config
    inside = list(path.glob("*.npz")) if path.is_dir() else []
    return open_source(inside[0] if len(inside) == 1 else path), None


def _looks_like_a_path(model: str) -> bool:
    return ":" in model or model.endswith((".npz", "/")) or model.startswith((".", "/", "~"))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else "none" if value is None else str(value)
