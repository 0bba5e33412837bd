"""The documentation's table of checkpoints; run it to write the table there."""

from generated import write_between
from paths import REPO

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.fine_tunes import FINE_TUNES

PAGE = REPO / "docs" / "checkpoints.md"


def table() -> str:
    """Markdown: one row a checkpoint, then one a fine-tune."""
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
    return "\n".join([*lines, *fine_tunes()]) + "\n"


def fine_tunes() -> list[str]:
    """Markdown: one row a fine-tune."""
    lines = [
        "",
        "Well-known fine-tunes load by their names too (`siglip-jax list --fine-tunes`). Their",
        "files come from the hub, under licences of their own. Profile is the preprocessing that",
        "their makers use (`--profile`).",
        "",
        "| name | of | parameters | input | text | profile | licence | hub |",
        "|---|---|--:|---|---|---|---|---|",
    ]
    for t in FINE_TUNES:
        licence = t.licence + (" (gated)" if t.gated else "")
        lines.append(
            f"| `{t.name}` | `{t.base}` | {t.params:,} | {t.config.vision.res} px "
            f"| {t.config.text.length} {t.tokenizer} | {t.profile} | {licence} | {t.hf} |"
        )
    return lines


if __name__ == "__main__":
    write_between(PAGE, table())
