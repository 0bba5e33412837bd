"""Which stored tensors make which parameter.

Most are the same tensor under the same name. The exceptions: the blocks of a
tower change between loop and scan form, a position embedding is resampled for
another resolution, and old text towers store theirs in two parts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from siglip_jax.config import NaFlexVision, Siglip
from siglip_jax.messages import near_part
from siglip_jax.weights.layout import (
    IMAGE_ENCODER,
    TEXT_ENCODER,
    block_name,
    is_scanned,
    parameter_shapes,
    split_block_name,
)
from siglip_jax.weights.reader import FLOATS, Header

# big_vision: old text towers added a second position embedding by mistake
# (text_transformer.load); their sum is what was trained.
_OLD_TEXT_POSEMB = "txt/Encoder_0/pos_embedding"
_TEXT_POSEMB = "txt/pos_embedding"
_IMAGE_POSEMB = "img/pos_embedding"

_SHOWN = 10
_MOST_LAYERS = 1024


@dataclasses.dataclass(frozen=True)
class Route:
    """Stored tensors `sources` and the parameters `targets` made of them.

    `how` is "copy" (one to one), "unstack" (one to a layer each), "stack" (a
    layer each to one), "add" (sum) or "resample" (a position embedding).
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    how: Literal["copy", "unstack", "stack", "add", "resample"]


def reform(
    shapes: Mapping[str, tuple[int, ...]], *, scan_image: bool | None, scan_text: bool | None
) -> list[Route]:
    """Routes that put the blocks of each tower into loop or scan form; None leaves them.

    Raises:
      ValueError: if layers are left out.

    >>> reform({"img/Transformer/encoderblock/x": (2, 8)}, scan_image=False, scan_text=None)[0]
    ... # doctest: +NORMALIZE_WHITESPACE
    Route(sources=('img/Transformer/encoderblock/x',),
          targets=('img/Transformer/encoderblock_0/x', 'img/Transformer/encoderblock_1/x'),
          how='unstack')
    """
    scan = {IMAGE_ENCODER: scan_image, TEXT_ENCODER: scan_text}
    routes: list[Route] = []
    layers: dict[str, dict[int, str]] = {}
    for name, shape in shapes.items():
        block = split_block_name(name)
        if block is None or scan[block.encoder] in (None, block.layer is None):
            routes.append(Route((name,), (name,), "copy"))
        elif block.layer is None:
            if not 1 <= (shape or (0,))[0] <= _MOST_LAYERS:
                expected = f"expected layers first, at most {_MOST_LAYERS:,}"
                raise ValueError(f"{name} is {shape}; {expected}")
            unstacked = [block_name(block.encoder, i, block.leaf) for i in range(shape[0])]
            routes.append(Route((name,), tuple(unstacked), "unstack"))
        else:
            stacked = block_name(block.encoder, None, block.leaf)
            layers.setdefault(stacked, {})[block.layer] = name
    for stacked, names in layers.items():
        if len(names) != max(names) + 1:
            raise ValueError(f"cannot stack {stacked}: it has only layers {sorted(names)}")
        routes.append(Route(tuple(names[i] for i in sorted(names)), (stacked,), "stack"))
    return routes


def strict_routes(
    found: Mapping[str, Header],
    config: Siglip,
    *,
    path: str,
    subtree: str = "",
    scan_image: bool = False,
    scan_text: bool = False,
    resize_posemb: bool = False,
    convert: bool = False,
) -> list[Route]:
    """Routes that fill every parameter of `config` and use every tensor of `found`.

    Args:
      found: the stored tensors, by their full names.
      path: of the checkpoint, for messages.
      subtree: only this part of the model is wanted.
      scan_image, scan_text: the form wanted; the stored form may be either.
      resize_posemb: resample an image position embedding of another grid.
      convert: any float dtype will do, because it is converted.

    Raises:
      ValueError: that lists everything missing, unexpected, of a wrong shape or
        of a wrong dtype, at once.
    """
    wanted = parameter_shapes(
        config,
        scan_image=is_scanned(found, IMAGE_ENCODER),
        scan_text=is_scanned(found, TEXT_ENCODER),
    )
    inside = f"{subtree}/" if subtree else ""
    wanted = {name: shape for name, shape in wanted.items() if name.startswith(inside)}
    shapes = {name: header.shape for name, header in found.items()}

    special: dict[str, Route] = {}
    text_posemb = wanted.get(_TEXT_POSEMB)
    if text_posemb and shapes.get(_OLD_TEXT_POSEMB) == text_posemb:
        pair = (_TEXT_POSEMB, _OLD_TEXT_POSEMB)
        special[_TEXT_POSEMB] = Route(pair, (_TEXT_POSEMB,), "add")
        wanted[_OLD_TEXT_POSEMB] = text_posemb
    resizable = not isinstance(config.vision, NaFlexVision) and _resizable(
        shapes.get(_IMAGE_POSEMB, ()), wanted.get(_IMAGE_POSEMB, ())
    )
    if resizable and resize_posemb:
        special[_IMAGE_POSEMB] = Route((_IMAGE_POSEMB,), (_IMAGE_POSEMB,), "resample")
        wanted[_IMAGE_POSEMB] = shapes[_IMAGE_POSEMB]

    problems = mismatches(shapes, wanted, hint=_IMAGE_POSEMB if resizable else None)
    allowed = FLOATS if convert else FLOATS[:3]
    problems["wrong dtype"] = [
        f"{name} is {header.dtype}, expected "
        + ("float32; pass dtype to convert it" if header.dtype in FLOATS else "a float")
        for name, header in found.items()
        if name in wanted and header.dtype not in allowed
    ]
    refuse(path, problems)
    routes = reform(shapes, scan_image=scan_image, scan_text=scan_text)
    summed = {source for route in special.values() for source in route.sources}
    return [r for r in routes if r.sources[0] not in summed] + list(special.values())


def _resizable(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    # Both are (1, positions, width); grids are square, which resample_posemb checks.
    return (
        len(found) == len(wanted) == 3
        and found != wanted
        and (found[0], found[2]) == (wanted[0], wanted[2])
    )


def mismatches(
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    hint: str | None = None,
) -> dict[str, list[str]]:
    """Lines about what is missing, unexpected and of a wrong shape, by kind.

    `hint` is a name whose shape `resize_posemb` would mend.
    """
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    shapes: list[str] = []
    for name, shape in wanted.items():
        if name in found and found[name] != shape:
            advice = "; to resample it give resize_posemb=True" if name == hint else ""
            shapes.append(f"{name} is {found[name]}, expected {shape}{advice}")
    return {
        "missing": _with_near(missing, wanted, unexpected),
        "unexpected": _with_near(unexpected, found, missing),
        "wrong shape": shapes,
    }


def refuse(path: str, problems: Mapping[str, list[str]]) -> None:
    """Raises a ValueError that lists all problems, by kind, if there is any."""
    if count := sum(map(len, problems.values())):
        raise ValueError(
            f"{path} does not fit the model: {count} problem{'s' if count > 1 else ''}"
            + "".join(_listed(kind, lines) for kind, lines in problems.items())
        )


def _with_near(
    names: list[str], shapes: Mapping[str, tuple[int, ...]], others: list[str]
) -> list[str]:
    lines = [f"{name} {shapes[name]}" for name in names]
    for i, name in enumerate(names[:_SHOWN]):
        if near := near_part(name, others):
            lines[i] += f" (near: {near})"
    return lines


def _listed(kind: str, lines: list[str]) -> str:
    shown = [f"\n  {kind}: {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"\n  {kind}: and {len(lines) - _SHOWN} more")
    return "".join(shown)
