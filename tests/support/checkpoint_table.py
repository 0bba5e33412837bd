"""The documentation's table of checkpoints; run it to write the table there."""

from generated import write_between
from paths import REPO

from siglip_jax.checkpoints import CHECKPOINTS

PAGE = REPO / "docs" / "checkpoints.md"


def table() -> str:
    """Markdown: one row a checkpoint."""
    lines = [
        "| name | parameters | input | text | ImageNet | COCO T→I / I→T | open_clip | hub |",
        "|---|--:|---|---|--:|--:|---|---|",
    ]
    for c in CHECKPOINTS:
        vision, a = c.config.vision, c.accuracy
        size = "any aspect" if c.config.naflex else f"{vision.res} px"
        coco = f"{a.coco_t2i} / {a.coco_i2t}" if a.coco_t2i else ""
        lines.append(
            f"| `{c.name}` | {c.params:,} | {size} | {c.config.text.length} {c.tokenizer} "
            f"| {a.imagenet or ''} | {coco} | {c.open_clip[0]} | {c.hf} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_between(PAGE, table())
