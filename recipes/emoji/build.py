"""Builds the emoji data that the bundled model is trained and measured on.

    python recipes/emoji/build.py --out data/emoji --twemoji emoji-datasource-twitter-16.0.0.tgz

The same versions of the font, Pillow, sentencepiece and pyarrow give the same bytes.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from captions import captions, every_caption, leaks, unambiguous_aliases
from drawings import draw_all, open_font, twemoji
from inventory import TONE_NAMES, Emoji, inventory
from protocol import protocol
from sameness import identical
from split import COMBINATIONS, NAMES, SEED, TRAIN, UNSEEN_COMBINATIONS, UNSEEN_NAMES, split
from vocabulary import PIECES, train_vocabulary

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
_SCHEMA = pyarrow.schema(
    [
        ("key", pyarrow.string()),
        ("image", pyarrow.binary()),
        ("captions", pyarrow.list_(pyarrow.string())),
        ("emoji", pyarrow.string()),
        ("name", pyarrow.string()),
        ("group", pyarrow.string()),
        ("role", pyarrow.string()),
        ("gender", pyarrow.string()),
        ("tones", pyarrow.list_(pyarrow.string())),
        ("class", pyarrow.string()),
        ("split", pyarrow.string()),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much to hold out, and of which emoji; tests build a few only."""

    names: int = UNSEEN_NAMES
    combinations: int = UNSEEN_COMBINATIONS
    pieces: int = PIECES
    seed: int = SEED


def build(
    out: Path,
    font: str | Path = FONT,
    other_artist: str | Path | None = None,
    emoji: list[Emoji] | None = None,
    sizes: Sizes | None = None,
) -> dict[str, int]:
    """Writes all files to `out`; returns the number of pictures of each split.

    Raises:
      ValueError: if the font or the other artist's pictures cannot be read.
    """
    sizes = sizes or Sizes()
    emoji = inventory() if emoji is None else emoji
    drawn = draw_all(open_font(font), [one.text for one in emoji])
    other = twemoji(other_artist) if other_artist is not None else None
    counts = {"not in the font": sum(one.text not in drawn for one in emoji)}
    emoji = [one for one in emoji if one.text in drawn]
    pictures = {one.key: drawn[one.text] for one in emoji}
    class_of = identical(emoji, pictures)
    places = split(
        emoji, class_of, names=sizes.names, combinations=sizes.combinations, seed=sizes.seed
    )

    aliases = unambiguous_aliases(emoji)
    hidden = [one for one in emoji if places[one.key] != TRAIN]
    forbidden = set().union(*(every_caption(one, one.aliases) for one in hidden))
    texts = {
        one.key: captions(
            one,
            aliases[one.key],
            forbidden if places[one.key] == TRAIN else set(),
            sizes.seed,
        )
        for one in emoji
    }
    training = [texts[one.key] for one in emoji if places[one.key] == TRAIN]
    leaked = leaks(training, (every_caption(one, one.aliases) for one in hidden))
    if leaked:
        raise ValueError(f"training captions name what is held out: {sorted(leaked)[:5]}")

    out.mkdir(parents=True, exist_ok=True)
    for part in (TRAIN, COMBINATIONS, NAMES):
        keys = {one.key: pictures[one.key] for one in emoji if places[one.key] == part}
        counts[part] = _write(out / f"{part}.parquet", emoji, keys, texts, class_of, places)
    other_class = None
    if other is not None:
        known = [one for one in emoji if one.key in other]
        keys = {one.key: other[one.key] for one in known}
        other_class = identical(known, keys)
        counts["twemoji"] = _write(out / "twemoji.parquet", known, keys, texts, other_class, places)
    _replace(
        out / "tokenizer.model",
        train_vocabulary((text for part in training for text in part), sizes.pieces),
    )
    plan = protocol(emoji, places, class_of, other_class)
    _replace(out / "protocol.json", json.dumps(plan, ensure_ascii=False, indent=1).encode())
    return counts


def _write(
    path: Path,
    emoji: list[Emoji],
    pictures: dict[str, bytes],
    texts: dict[str, list[str]],
    class_of: dict[str, str],
    places: dict[str, str],
) -> int:
    rows: list[dict[str, Any]] = [
        {
            "key": one.key,
            "image": pictures[one.key],
            "captions": texts[one.key],
            "emoji": one.text,
            "name": one.names["en"],
            "group": one.group,
            "role": one.role,
            "gender": one.gender,
            "tones": [TONE_NAMES[tone] for tone in one.tones],
            "class": class_of[one.key],
            "split": places[one.key],
        }
        for one in emoji
        if one.key in pictures
    ]
    partial = path.with_name(f"{path.name}.partial")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, _SCHEMA), partial)
    partial.replace(path)
    return len(rows)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf")
    parser.add_argument(
        "--twemoji", type=Path, help="npm package emoji-datasource-twitter: .tgz or folder"
    )
    given = parser.parse_args()
    try:
        counts = build(given.out, given.font, given.twemoji)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for name, count in counts.items():
        print(f"{name:24}{count:6,}")


if __name__ == "__main__":
    main()
