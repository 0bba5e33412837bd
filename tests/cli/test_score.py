"""`siglip-jax score`."""

import io
import json
import os
import re
import struct
import sys
import warnings
import zlib

import command_line
import numpy as np
import pytest
from command_line import on_a_terminal
from pictures import encoded, scene
from PIL import Image
from tolerances import LOGIT_RELATIVE

import siglip_jax

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
)
pytestmark = pytest.mark.usefixtures("surroundings")
LABELS = ["a cat", "a dog", "a donut"]


def test_score_equals_the_library(cli, model, pictures):
    files = [pictures / "a.PNG", pictures / "b.png"]
    code, out, err = cli("score", "--model", model, *files, "--labels", *LABELS, "--json")
    got = json.loads(out)
    assert (code, err, got["errors"]) == (0, [], [])
    assert (got["model"], got["profile"], got["dtype"]) == ("m", "big_vision", "float32")
    scorer = siglip_jax.load(model).scorer()
    expected = scorer.score(files, LABELS)
    assert [image["image"] for image in got["images"]] == list(map(str, files))
    for image, hits in zip(got["images"], expected.top(), strict=True):
        assert [hit["label"] for hit in image["scores"]] == [hit.label for hit in hits]
        logits = np.array([hit["logit"] for hit in image["scores"]])
        np.testing.assert_allclose(logits, [hit.logit for hit in hits], rtol=LOGIT_RELATIVE)
        np.testing.assert_allclose(
            [hit["probability"] for hit in image["scores"]], 1 / (1 + np.exp(-logits)), rtol=1e-6
        )


def images_of(out):
    head, *rows = (line.split("\t") for line in out.splitlines())
    assert head == ["image", "label", "probability", "logit"]
    return list(dict.fromkeys(row[0] for row in rows)), rows


def test_score_folders_patterns_stdin_and_label_files(
    cli, model, pictures, monkeypatch, tmp_path, capsys
):
    (tmp_path / "labels.txt").write_text("a cat\n\n  a dog \r\n", encoding="utf-8")
    listed = pictures / "sub" / "c.png"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{listed}\n\n"))
    code, out, err = cli(
        *("score", "--model", model, pictures, f"{tmp_path}/pict*/?.png", "-"),
        *("--labels-file", "labels.txt", "--labels", "a donut", "--top", "2"),
    )
    assert (code, err) == (0, [])
    images, rows = images_of(out)
    a, b, c = (str(pictures / name) for name in ("a.PNG", "b.png", "sub/c.png"))
    assert images == [a, b, c]
    # Folder, pattern, list: in the order of the arguments, two labels each.
    assert [row[0] for row in rows] == [x for name in (a, b, c, b, c) for x in (name, name)]
    assert {row[1] for row in rows} <= {"a cat", "a dog", "a donut"}
    assert all(float(row[3]) >= float(rows[i + 1][3]) for i, row in enumerate(rows[::2]) if not i)


def test_score_templates(cli, model, pictures):
    file = pictures / "b.png"
    _, out, _ = cli(
        *("score", "--model", model, file, "--labels", "cat", "dog", "--json"),
        *("--template", "a {}", "--template", "{}s"),
    )
    got = json.loads(out)
    assert got["templates"] == ["a {}", "{}s"]
    expected = siglip_jax.load(model).scorer().score([file], ["cat", "dog"], got["templates"])
    np.testing.assert_allclose(
        [hit["logit"] for hit in got["images"][0]["scores"]],
        [hit.logit for hit in expected.top()[0]],
        rtol=LOGIT_RELATIVE,
    )


def test_score_for_a_person(monkeypatch, model, pictures):
    label = "a [bracket]" + " " * 60 + "and more"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the label is too long for the model, too
        code, shown = on_a_terminal(
            monkeypatch, "score", "--model", model, pictures / "sub", "--labels", "a cat", label
        )
    lines = shown.splitlines()
    assert code == 0 and lines[0] == str(pictures / "sub" / "c.png")
    assert max(map(len, lines[1:])) <= 80
    assert sum(bool(re.search(r" \d+(\.\d+)?%$", line)) for line in lines) == 2
    assert "[bracket]" in shown and "and more" in shown


def test_bars():
    from siglip_jax.cli.commands.score import bar, percent

    assert bar(0, 8) == "" and bar(1, 8) == "█" * 8
    assert [bar(p, 1) for p in (1 / 8, 1 / 2, 0.99)] == ["▏", "▌", "█"]
    assert [percent(p) for p in (0, 1e-9, 0.0004, 0.001, 0.5)] == [
        "0.00%",
        "1.0e-07%",
        "0.040%",
        "0.10%",
        "50.00%",
    ]


def png_header(width, height):
    """A PNG that promises `width` x `height` pixels and has none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + chunk + empty


@pytest.mark.filterwarnings("ignore:1 image carries an EXIF rotation")
def test_every_kind_of_picture(cli, model, tmp_path):
    rgb = Image.fromarray(scene(40, 60))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    jpeg = encoded(rgb, "JPEG")
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    grey16 = Image.fromarray((scene(40, 60)[..., 0].astype(np.uint16) << 8) + 3)
    kinds = {
        "grey.png": encoded(rgb.convert("L"), "PNG"),
        "palette.png": encoded(rgb.quantize(16), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "16bit.png": encoded(grey16, "PNG"),
        "rotated.jpg": encoded(rgb, "JPEG", exif=rotated),
        "animated.gif": encoded(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)] * 2),
        "misnamed.png": jpeg,
    }
    bad = {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "huge.png": (png_header(100_000, 100_000), "pixels"),
        "text.jpg": (b"hello", "not an image in a known format"),
        "empty.png": (b"", "the file is empty"),
    }
    folder = tmp_path / "kinds"
    folder.mkdir()
    for name, data in {**kinds, **{name: data for name, (data, _) in bad.items()}}.items():
        (folder / name).write_bytes(data)
    code, out, err = cli("score", "--model", model, folder, "gone.png", "--labels", *LABELS)
    images, rows = images_of(out)
    assert images == sorted(str(folder / name) for name in kinds)
    assert all(np.isfinite(float(row[3])) for row in rows) and len(rows) == 3 * len(kinds)
    # The same picture under another name has the same scores.
    scores = {os.path.basename(row[0]): row[3] for row in rows if row[1] == "a cat"}  # noqa: PTH119
    assert scores["rotated.jpg"] == scores["misnamed.png"]  # big_vision ignores EXIF
    assert code == 2 and len(err) == len(bad) + 1
    for name, (_, why) in bad.items():
        (line,) = [line for line in err if f"/{name}: " in line]
        assert line.startswith(f"siglip-jax: error: {folder / name}: ") and why in line
    assert err[-1] == "siglip-jax: error: gone.png: cannot be read: No such file or directory"


def test_errors_are_in_the_json_too(cli, model, tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    code, out, err = cli("score", "--model", model, "x.jpg", "--labels", "a cat", "--json")
    got = json.loads(out)
    assert code == 2 and err == ["siglip-jax: error: x.jpg: not an image in a known format"]
    assert got["images"] == []
    assert got["errors"] == [{"image": "x.jpg", "error": "x.jpg: not an image in a known format"}]


def test_long_texts_are_a_warning_not_an_error(cli, model, pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = cli("score", "--model", model, pictures / "b.png", "--labels", "cat " * 99)
    assert code == 0
    assert err == ["siglip-jax: warning: 1 of 1 texts are longer than 8 tokens and were cut"]


def test_a_file_name_that_is_no_unicode(cli, model, pictures):
    name = os.fsdecode(os.fsencode(str(pictures)) + b"/caf\xe9.png")
    (pictures / "b.png").rename(name)
    code, out, _ = cli("score", "--model", model, name, "--labels", "a cat", "--json")
    assert code == 0 and json.loads(out)["images"][0]["image"] == name
    assert r"caf\udce9.png" in out
