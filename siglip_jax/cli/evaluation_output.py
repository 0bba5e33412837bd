"""What a task found, for a person."""

from typing import Any

from siglip_jax.cli.output import aligned
from siglip_jax.messages import counted

_NAMES = {
    "accuracy": "accuracy",
    "top5_accuracy": "right among 5",
    "mean_per_class_recall": "mean per-class recall",
    "mean_average_precision": "mean average precision",
    "text_accuracy": "caption of an image",
    "image_accuracy": "image of a caption",
    "group_accuracy": "both",
}
_DIRECTIONS = (("img2txt", "image to caption"), ("txt2img", "caption to image"))


def print_measured(result: dict[str, Any]) -> None:
    """Prints counts, then the metrics in percent; `result` is what --json prints."""
    metrics = result["metrics"]
    print(", ".join(_counts(result)))
    if "languages" in result:
        print(aligned(_languages(result), "l" + "r" * 6))
    elif "img2txt_recall@1" in metrics:
        ks = list(dict.fromkeys(int(name.partition("@")[2]) for name in metrics))
        rows = [("recall", *(f"@{k}" for k in ks))]
        for key, name in _DIRECTIONS:
            rows.append((name, *(f"{metrics[f'{key}_recall@{k}']:.2%}" for k in ks)))
        print(aligned(rows, "l" + "r" * len(ks)))
    else:
        rows = [(name, f"{metrics[key]:.2%}") for key, name in _NAMES.items() if key in metrics]
        print(aligned(rows, "lr"))


def _counts(result: dict[str, Any]) -> list[str]:
    bad = f" ({len(result['errors']):,} more cannot be read)" if result["errors"] else ""
    counts = [f"{counted(result['images'], 'image')}{bad}"]
    if "train_images" in result:
        counts.append(f"{result['train_images']:,} to learn from")
    if "classes" in result:
        counts.append(counted(result["classes"], "class", "classes"))
        if without := result.get("classes_without_images"):
            counts[-1] += f" ({without:,} without images)"
    if "templates" in result:
        templates = result["templates"]
        counts.append(f"{len(templates)} templates" if len(templates) > 1 else repr(templates[0]))
    if "texts" in result:
        counts.append(counted(result["texts"], "caption"))
    if "groups" in result:
        left = result["groups_left_out"]
        counts.append(
            counted(result["groups"], "group") + (f" ({left:,} left out)" if left else "")
        )
    settings = ("strength", "neighbours", "shots", "seeds")
    counts += [
        f"{name} {result['probe'][name]:g}" for name in settings if name in result.get("probe", {})
    ]
    return counts


def _languages(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row a language, and the mean."""
    parts = {name: part["metrics"] for name, part in result["languages"].items()}
    parts[f"mean of {len(parts)}"] = result["metrics"]
    names = list(result["metrics"])
    short = dict(zip(("img2txt", "txt2img"), ("image to caption", "caption to image"), strict=True))
    head = [
        f"{short[n.partition('_')[0]] if n.endswith('@1') else ''} @{n.partition('@')[2]}"
        for n in names
    ]
    rows = [("recall", *(text.strip() for text in head))]
    rows += [(name, *(f"{own[key]:.2%}" for key in names)) for name, own in parts.items()]
    return rows
