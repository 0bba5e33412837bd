"""The emoji data: what is held out stays out, and the same versions build the same files."""

import dataclasses
import doctest
import functools
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import sentencepiece
from paths import REPO
from PIL import Image, features

pytest.importorskip("emoji", reason="the emoji data needs: pip install emoji")
pytest.importorskip("pyarrow", reason="the emoji data needs: pip install emoji")
import pyarrow.parquet as parquet

RECIPE = REPO / "recipes" / "emoji"
# The scripts of the recipe import each other as siblings; another "build" may be installed.
sys.path.insert(0, str(RECIPE))
import build  # noqa: E402
import captions  # noqa: E402
import drawings  # noqa: E402
import inventory  # noqa: E402
import protocol  # noqa: E402
import sameness  # noqa: E402
import split  # noqa: E402
import vocabulary  # noqa: E402

needs_font = pytest.mark.skipif(
    not (Path(build.FONT).is_file() and features.check("raqm")),
    reason=f"needs {build.FONT} (Debian's fonts-noto-color-emoji) and Pillow with raqm",
)
PARTS = (split.TRAIN, split.NAMES, split.COMBINATIONS)
SUBSET = build.Sizes(names=8, combinations=12, pieces=900)


@functools.cache
def every() -> list[inventory.Emoji]:
    return inventory.inventory()


@functools.cache
def everything_split() -> dict[str, str]:
    return split.split(every(), {one.key: one.key for one in every()})


@functools.cache
def some() -> list[inventory.Emoji]:
    """A few roles with all their tones and genders, things and flags."""
    roles = sorted({one.role for one in every() if one.tones})[:90:6]
    things = [one for one in every() if one.group == "thing"][::20]
    flags = [one for one in every() if one.group == "flag"][::20]
    people = [one for one in every() if one.role in roles]
    return sorted([*people, *things, *flags], key=lambda one: one.key)


def by_text(text: str) -> inventory.Emoji:
    return next(one for one in every() if one.text == text)


@pytest.mark.parametrize("module", [inventory, sameness])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_names_are_words_in_six_languages():
    assert len({one.key for one in every()}) == len(every()) > 3_900
    for one in every():
        assert set(one.names) == set(inventory.LANGUAGES)
        for name in (*one.names.values(), *one.aliases):
            assert name and name == name.strip() and "_" not in name and ":" not in name
    assert by_text("👩🏽‍🚒").names["en"] == "woman firefighter medium skin tone"
    assert by_text("🇯🇴").names["en"] == "Jordan flag"


def test_a_skin_tone_is_the_same_words_in_every_name():
    for one in every():
        if len(one.tones) == 1:
            tone = inventory.TONE_NAMES[one.tones[0]]
            # At the end, but for "man light skin tone red hair".
            before, _, after = one.names["en"].partition(f" {tone} skin tone")
            assert one.concept == before + after != one.names["en"]
        assert one.tones or "skin tone" not in one.names["en"]


def test_splits_hold_out_enough():
    places = everything_split()
    assert set(places) == {one.key for one in every()}
    combinations = [key for key, place in places.items() if place == split.COMBINATIONS]
    untoned = [one for one in every() if places[one.key] == split.NAMES and not one.tones]
    assert len(combinations) >= 315
    assert abs(len(untoned) - split.UNSEEN_NAMES) <= 5
    assert {one.group for one in untoned} == {"person", "flag", "thing"}


def test_a_name_held_out_is_unseen_in_any_tone_or_gender():
    places = everything_split()
    hidden = [one for one in every() if places[one.key] == split.NAMES]
    others = [one for one in every() if places[one.key] != split.NAMES]
    assert not {one.role for one in hidden} & {one.role for one in others}
    assert not {one.concept for one in hidden} & {one.concept for one in others}


def test_a_combination_held_out_is_unseen_but_its_parts_are_seen():
    places = everything_split()
    hidden = [one for one in every() if places[one.key] == split.COMBINATIONS]
    seen = [one for one in every() if places[one.key] == split.TRAIN]
    pairs = {(one.role, one.tones) for one in hidden}
    assert not pairs & {(one.role, one.tones) for one in seen}
    tones = {one.role: set() for one in seen}
    for one in seen:
        tones[one.role].update(one.tones)
    for role, _ in pairs:
        assert len(tones[role]) >= 3
    assert {one.tones for one in hidden} == {(tone,) for tone in range(5)}


def test_the_seed_decides_the_split():
    class_of = {one.key: one.key for one in every()}
    assert split.split(every(), class_of) == everything_split()
    assert split.split(every(), class_of, seed=1) != everything_split()


def test_emoji_that_cannot_be_told_apart_are_held_out_together():
    places = everything_split()
    held = next(key for key, place in places.items() if place == split.NAMES)
    twin = next(key for key, place in places.items() if place == split.TRAIN)
    class_of = {one.key: one.key for one in every()} | {twin: held}
    places = split.split(every(), class_of)
    assert places[twin] == places[held]


def test_too_many_combinations():
    with pytest.raises(ValueError, match=r"at least 9000 combinations .* roles give \d+; hold"):
        split.split(every(), {one.key: one.key for one in every()}, combinations=9000)


def test_an_alias_that_means_another_emoji_is_dropped():
    tiger, face = by_text("🐅"), by_text("🐯")
    face = dataclasses.replace(face, aliases=("Tiger", "tiger head"))
    assert captions.unambiguous_aliases([tiger, face])[face.key] == ("tiger head",)


def test_captions_leave_out_what_is_forbidden():
    one = by_text("🐯")
    plain = captions.captions(one, (), set(), seed=0)
    assert len(plain) == 20 and plain.count("tiger face") == 8
    assert not captions.captions(one, (), captions.every_caption(one, ()), seed=0)
    assert captions.leaks([plain], [{"tiger face"}]) == {"tiger face": 8}
    assert not captions.leaks([plain], [{"tiger"}])


def test_a_leak_of_a_held_out_name_stops_the_build(monkeypatch, tmp_path):
    # As if captions() forgot what is forbidden.
    monkeypatch.setattr(build, "captions", lambda *_: ["what is held out"])
    monkeypatch.setattr(build, "every_caption", lambda *_: {"what is held out"})
    monkeypatch.setattr(build, "open_font", lambda _: None)
    monkeypatch.setattr(build, "draw_all", lambda _, texts: {t: t.encode() for t in texts})
    with pytest.raises(ValueError, match="training captions name what is held out"):
        build.build(tmp_path, emoji=some(), sizes=SUBSET)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Two builds of the same few emoji, with another artist's pictures."""
    other = tmp_path_factory.mktemp("other") / "img" / "twitter" / "64"
    other.mkdir(parents=True)
    for number, one in enumerate(some()):
        # Two of them are drawn alike.
        colour = (max(number, 1) % 256, max(number, 1) // 256, 80, 255)
        Image.new("RGBA", (64, 64), colour).save(other / f"{one.key}.png")
    folders = [tmp_path_factory.mktemp("built") for _ in range(2)]
    for folder in folders:
        build.build(folder, other_artist=other.parents[2], emoji=some(), sizes=SUBSET)
    return folders


@needs_font
def test_the_same_emoji_build_the_same_bytes(twice):
    first, second = ({file.name: file.read_bytes() for file in f.iterdir()} for f in twice)
    tables = {f"{part}.parquet" for part in (*PARTS, "twemoji")}
    assert set(first) == tables | {"protocol.json", "tokenizer.model"}
    assert first == second


@needs_font
def test_splits_share_no_emoji_no_picture_and_no_caption(twice):
    rows = {part: parquet.read_table(twice[0] / f"{part}.parquet").to_pylist() for part in PARTS}
    assert sum(map(len, rows.values())) > 50 and all(rows.values())

    def all_of(part, what):
        return {value for row in rows[part] for value in what(row)}

    for what in (
        lambda row: [row["key"]],
        lambda row: [row["image"]],
        lambda row: [sameness.same_text(text) for text in row["captions"]],
    ):
        for part in (split.NAMES, split.COMBINATIONS):
            assert not all_of(split.TRAIN, what) & all_of(part, what)


@needs_font
def test_pictures_are_square_and_not_empty(twice):
    for row in parquet.read_table(twice[0] / "train.parquet").to_pylist():
        picture = Image.open(io.BytesIO(row["image"]))
        assert (picture.mode, picture.size) == ("RGBA", (drawings.SIDE, drawings.SIDE))
        assert picture.getchannel("A").getextrema()[1] > 200, row["name"]
    clear = drawings.png(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert Image.open(io.BytesIO(clear)).getpixel((0, 0)) == (0, 0, 0, 0)


@needs_font
def test_what_the_font_cannot_draw_as_one_picture_is_left_out():
    font = drawings.open_font(build.FONT)
    assert drawings.draw(font, "👩🏽‍🚒") is not None
    # No such ligature: a cat and a dog side by side. No such character at all.
    assert drawings.draw(font, "🐈\u200d🐕") is None
    assert drawings.draw(font, "\U0001fbff") is None
    drawn = drawings.draw_all(font, ["👍🏻", "👍🏿", "🐈\u200d🐕"])
    assert list(drawn) == ["👍🏻", "👍🏿"] and drawn["👍🏻"] != drawn["👍🏿"]


@needs_font
def test_another_artists_pictures_keep_the_split(twice):
    other = parquet.read_table(twice[0] / "twemoji.parquet").to_pylist()
    for part in PARTS:
        own = parquet.read_table(twice[0] / f"{part}.parquet", columns=["key"]).to_pylist()
        assert {row["key"] for row in own} == {r["key"] for r in other if r["split"] == part}


@needs_font
def test_what_counts_as_right(twice):
    plan = json.loads((twice[0] / "protocol.json").read_text("utf-8"))
    for name in plan["evaluations"]:
        for language in ("en", "es"):
            asked = protocol.evaluation(plan, name, language)
            assert len(set(asked.captions)) == len(asked.captions)
            assert len(asked.pictures) == len(asked.right) > 0
            for key, right in zip(asked.pictures, asked.right, strict=True):
                assert plan["names"][key][language] in [asked.captions[i] for i in right]
    combinations = protocol.evaluation(plan, "unseen_combinations")
    assert set(map(len, combinations.right)) == {1}
    # The two that the other artist drew alike are both right, there alone.
    first, second = (one.key for one in some()[:2])
    assert [first, second] in plan["classes"]["twemoji"]
    assert [first, second] not in plan["classes"]["noto"]


def test_unknown_evaluation_and_language():
    plan = {"evaluations": {"seen": {}}, "languages": ["en"]}
    for asked, message in ((("sen",), "evaluation 'sen'"), (("seen", "xx"), "language 'xx'")):
        with pytest.raises(ValueError, match=f"no {message} in the protocol: it has (seen|en)$"):
            protocol.evaluation(plan, *asked)


@needs_font
def test_the_vocabulary_encodes_any_text(twice):
    pieces = sentencepiece.SentencePieceProcessor(str(twice[0] / "tokenizer.model"))
    assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id()) == (0, 1, 2)
    assert (pieces.bos_id(), pieces.get_piece_size()) == (-1, SUBSET.pieces)
    for text in ("woman dark skin tone", "ጤና ይስጥልኝ", "an unseen 🦕"):
        ids = pieces.encode(text)
        assert vocabulary.UNK not in ids and pieces.decode(ids)


def test_too_few_captions_for_a_vocabulary():
    with pytest.raises(ValueError, match="no vocabulary of 2048 pieces comes from 1 captions"):
        vocabulary.train_vocabulary(["a dog"])


def test_another_artists_pictures_from_a_package_and_its_folder(tmp_path):
    folder = tmp_path / "package" / "img" / "twitter" / "64"
    folder.mkdir(parents=True)
    Image.new("RGBA", (64, 64), (1, 2, 3, 255)).save(folder / "1f408.png")
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "package", "package")
    assert drawings.twemoji(archive) == drawings.twemoji(tmp_path / "package")
    assert list(drawings.twemoji(archive)) == ["1f408"]
    (folder / "1f408.png").unlink()
    with pytest.raises(ValueError, match="no pictures img/twitter/64"):
        drawings.twemoji(tmp_path / "package")
    archive.write_text("not an archive")
    with pytest.raises(ValueError, match="cannot be read as an npm package"):
        drawings.twemoji(archive)


def test_without_the_font(tmp_path):
    command = [sys.executable, RECIPE / "build.py", "--out", tmp_path / "o", "--font", "no.ttf"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and not (tmp_path / "o").exists()
    assert "install Debian's fonts-noto-color-emoji" in run.stderr
    assert "Traceback" not in run.stderr
