"""Damaged files of every format: one line that names a file, whatever they say."""

import json
import random
import shutil

import pytest
from saved_model import saved

from siglip_jax.converters import convert, open_checkpoint

FORMATS = ("siglip_jax", "npz", "tensorstore", "transformers", "open_clip", "timm")
WRONG = (None, -1, 0, 0.5, 10**30, "", "a", [], {}, [1], True, {"a": 1}, float("nan"))
CASES = 40


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    model = saved(root / "model")
    for to in FORMATS:
        (root / to).mkdir()
        name = "x.npz" if to == "npz" else "x"
        convert(model, root / to / name, to=to, tower="image" if to == "timm" else None)
    return root


def bytes_mutated(data, rng):
    data, way = bytearray(data), rng.randrange(5)
    at = rng.randrange(len(data)) if data else 0
    if way == 0:
        return bytes(data[:at])
    if way == 1:
        for _ in range(4):
            data[-rng.randrange(1, min(len(data), 2000) + 1)] = rng.randrange(256)
        return bytes(data)
    if way == 2:
        return bytes(data[:at] + data[at + rng.randrange(1, 50) :])
    if way == 3:
        data[rng.randrange(min(len(data), 4000))] ^= 1 << rng.randrange(8)
        return bytes(data)
    return rng.choice([b"", b"null", b"[]", b"3", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe"])


def json_mutated(data, rng):
    plain = json.loads(data)
    inner = plain
    while True:
        key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.7:
            inner = inner[key]
            continue
        inner[key] = rng.choice(WRONG)
        return json.dumps(plain).encode()


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_one_line(sources, tmp_path, form):
    rng = random.Random(f"damage {form}")
    refused = 0
    for _ in range(CASES):
        shutil.rmtree(tmp_path / "case", ignore_errors=True)
        shutil.copytree(sources / form, tmp_path / "case")
        files = [file for file in sorted((tmp_path / "case").rglob("*")) if file.is_file()]
        file = rng.choice([each for each in files if "conversion" not in each.name])
        data = file.read_bytes()
        own = file.suffix == ".json" and rng.random() < 0.7
        file.write_bytes(json_mutated(data, rng) if own else bytes_mutated(data, rng))
        try:
            name = "x.npz" if form == "npz" else "x"
            convert(tmp_path / "case" / name, tmp_path / "out.npz", to="npz", force=True)
        except (ValueError, OSError) as error:
            refused += 1
            assert str(error)
    assert refused > CASES / 4


@pytest.mark.parametrize(
    ("form", "file", "content"),
    [
        ("siglip_jax", "x/siglip_jax.json", lambda plain: plain | {"weights": 0.5}),
        ("transformers", "x/config.json", lambda plain: [[]]),
        ("timm", "x/config.json", lambda plain: plain | {"model_args": {"mlp_ratio": [1]}}),
    ],
)
def test_what_a_setting_may_say(sources, tmp_path, form, file, content):
    shutil.copytree(sources / form / "x", tmp_path / "x")
    plain = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(content(plain)))
    with pytest.raises(ValueError, match=str(tmp_path / "x")):
        open_checkpoint(tmp_path / "x")


def test_json_that_is_nested_without_end(sources, tmp_path):
    shutil.copytree(sources / "transformers" / "x", tmp_path / "x")
    (tmp_path / "x/config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config\.json: not JSON \(nested too deeply\)"):
        open_checkpoint(tmp_path / "x")
