"""The certificate: what it says is what happened, and it appears with its output."""

import datetime
import importlib
import importlib.metadata
import json
import re

import numpy as np
import pytest
from towers import NAMES, case

from siglip_jax.config import to_dict
from siglip_jax.converters import convert
from siglip_jax.converters.certificate import (
    certificate_path,
    with_findings,
    write_certificate,
)
from siglip_jax.converters.files import open_file
from siglip_jax.converters.record import file_digests
from siglip_jax.weights.npz import write_npz


def certified(source, target, **kw):
    """(record, certificate)"""
    record = convert(source, target, **kw)
    text = certificate_path(target, kw["to"]).read_text("utf-8")
    return record, json.loads(text)


@pytest.fixture
def fine_tune(tmp_path):
    """A checkpoint with an optimizer beside its parameters."""
    tiny = case("loop")
    with np.load(tiny.path) as file:
        arrays = {f"params/{name.removeprefix('params/')}": file[name] for name in file.files}
    extra = {"opt/0/count": np.zeros(1, np.float32), "chrono/seconds": np.ones(1, np.float32)}
    np.savez(tmp_path / "tune.npz", **arrays, **extra)
    return tmp_path / "tune.npz", tiny.config


def test_what_it_says(fine_tune, tmp_path):
    path, config = fine_tune
    record, made = certified(path, tmp_path / "hf", to="transformers", config=config, pad=1)
    assert made["tool"] == f"siglip-jax {importlib.metadata.version('siglip-jax')}"
    date = datetime.datetime.fromisoformat(made["date"])
    assert date.utcoffset() == datetime.timedelta(0)
    assert abs(datetime.datetime.now(datetime.UTC) - date) < datetime.timedelta(minutes=5)
    assert made["architecture"] == to_dict(config) and made["released_as"] is None
    assert made["parameters"] == record.parameters
    assert made["round_trip"] == {
        "bit_equal": True,
        "read_back": True,
        "dtype_kept": True,
        "weights_sha256": record.weights_sha256,
    }
    assert made["source"]["format"] == "npz" and made["target"]["format"] == "transformers"
    assert made["source"]["files"] == file_digests([path], tmp_path)
    written = [f for f in (tmp_path / "hf").iterdir() if f.name != "conversion.json"]
    assert made["target"]["files"] == file_digests(sorted(written), tmp_path)
    assert made["sha256"] == record.tensors
    assert made["tensors"]["dropped"] == {
        "opt/0/count": "not a parameter",
        "chrono/seconds": "not a parameter",
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("form", "to"), [("transformers", "timm"), ("open_clip", "transformers")])
def test_every_stored_tensor_is_accounted_for(tmp_path, name, form, to):
    tiny = case(name)
    convert(tiny.path, tmp_path / "a", to=form, config=tiny.config, pad=1)
    _, made = certified(tmp_path / "a", tmp_path / "b", to=to, pad=1)
    (file,) = (tmp_path / "a").glob("*.safetensors")
    with open_file(file) as reader:
        stored = {key: list(header.shape) for key, header in reader.shapes.items()}
    used = {}
    for row in made["tensors"]["used"]:
        used |= row["sources"]
    dropped = made["tensors"]["dropped"]
    assert not set(used) & set(dropped)
    assert set(used) | set(dropped) == set(stored)
    assert all(stored[key] == shape for key, shape in used.items())
    (file,) = (tmp_path / "b").glob("*.safetensors")
    with open_file(file) as reader:
        rows = {row["target"]: (row["shape"], row["dtype"]) for row in made["tensors"]["used"]}
        written = {k: (list(h.shape), h.dtype.name) for k, h in reader.shapes.items()}
    assert rows == written
    assert made["counts"] == {
        "stored": len(stored),
        "used": len(used),
        "dropped": len(dropped),
        "written": len(written),
        "added": len(made["tensors"]["added"]),
    }
    if to == "timm":
        assert set(dropped.values()) == {"not in the image tower"} | (
            {"projection that changes nothing"} if name == "headless" else set()
        )


def test_constants_are_added_and_named(tmp_path):
    tiny = case("headless")
    _, made = certified(tiny.path, tmp_path / "hf", to="transformers", config=tiny.config, pad=1)
    head = {"text_model.head.weight": "identity", "text_model.head.bias": "zeros"}
    assert made["tensors"]["added"] == head
    rows = [row for row in made["tensors"]["used"] if row["target"] in head]
    assert [row["sources"] for row in rows] == [{}, {}]


def test_rounding_and_not_looking_are_no_proof(tmp_path):
    tiny = case("loop")
    kw = {"config": tiny.config}
    _, rounded = certified(tiny.path, tmp_path / "a.npz", to="npz", dtype="bfloat16", **kw)
    assert rounded["round_trip"]["read_back"] and not rounded["round_trip"]["bit_equal"]
    assert not rounded["round_trip"]["dtype_kept"]
    _, unseen = certified(tiny.path, tmp_path / "b.npz", to="npz", verify=False, **kw)
    assert unseen["round_trip"]["dtype_kept"] and not unseen["round_trip"]["bit_equal"]


@pytest.mark.parametrize(
    ("to", "target", "place"),
    [
        ("npz", "x.npz", "x.npz.conversion.json"),
        ("tensorstore", "x.bv", "x.bv.conversion.json"),
        ("siglip_jax", "x", "x/conversion.json"),
    ],
)
def test_where_it_lies_and_what_replaces_it(tmp_path, to, target, place):
    tiny = case("loop")
    kw = {"config": tiny.config, "pad": 1}
    _, first = certified(tiny.path, tmp_path / target, to=to, **kw)
    assert (tmp_path / place).is_file()
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="exists already"):
        convert(tiny.path, tmp_path / target, to=to, **kw)
    assert json.loads((tmp_path / place).read_text()) == first
    _, second = certified(tiny.path, tmp_path / target, to=to, force=True, dtype="bfloat16", **kw)
    assert second["round_trip"] != first["round_trip"]
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_no_output_without_its_certificate(tmp_path, monkeypatch):
    def full(path, certificate):
        raise OSError(28, "No space left on device")

    # By its full name, the module is hidden behind the function.
    module = importlib.import_module("siglip_jax.converters.conversion")
    monkeypatch.setattr(module, "write_certificate", full)
    tiny = case("loop")
    with pytest.raises(OSError, match="No space"):
        convert(tiny.path, tmp_path / "x.npz", to="npz", config=tiny.config)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_is_a_line(tmp_path):
    tiny = case("loop")
    record = convert(tiny.path, tmp_path / "hf", to="timm", config=tiny.config)
    lines = (tmp_path / "hf" / "conversion.json").read_text().splitlines()
    assert sum('"target": ' in line and '"operation": ' in line for line in lines) == len(
        record.plan
    )
    assert sum(bool(re.match(r' +"img/\S+": "[0-9a-f]{64}",?$', line)) for line in lines) == len(
        record.tensors
    )
    write_certificate(tmp_path / "x.json", {"a": {}, "b": [], "ü": [{"c": [1, {"d": None}]}]})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {
        "a": {},
        "b": [],
        "ü": [{"c": [1, {"d": None}]}],
    }


def test_the_same_weights_have_the_same_digest_in_any_format(tmp_path):
    tiny = case("image_scan")
    kw = {"config": tiny.config, "pad": 1}
    made = [
        certified(tiny.path, tmp_path / target, to=to, **kw)[1]["round_trip"]["weights_sha256"]
        for to, target in (("transformers", "hf"), ("npz", "x.npz"), ("open_clip", "oc"))
    ]
    assert len(set(made)) == 1
    with np.load(tiny.path) as file:
        arrays = {name.removeprefix("params/"): file[name] for name in file.files}
    arrays["b"] = np.nextafter(arrays["b"], np.float32(0))  # one bit, more or less
    write_npz(tmp_path / "y.npz", arrays.items())
    _, other = certified(tmp_path / "y.npz", tmp_path / "z.npz", to="npz", **kw)
    assert other["round_trip"]["weights_sha256"] != made[0]


def processor(**changed):
    """What `--compare` finds through a folder's own processor."""
    return {
        "class": "SiglipProcessor",
        "profile": "custom",
        "inputs": "8 images and 29 texts",
        "pixels": {"largest_difference": 0.0, "share": 0.0},
        "other_ids": [],
        "altered": [],
        "largest_difference": {"image": 1e-7, "text": 1e-7, "logits": 2e-6},
        "agrees": True,
    } | changed


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        (None, r"^tensors only: every bit is as in the source; transformers was not run$"),
        ({"agrees": False}, "^tensors only: .*; transformers computes other numbers"),
        ({"agrees": True}, "^tensors and arithmetic only: .*; its own processor was not run$"),
        (
            {"agrees": True, "processor": processor(error="no", agrees=False)},
            "^tensors and arithmetic only: .*; its own processor does not run$",
        ),
        (
            {"agrees": True, "processor": processor(agrees=False, other_ids=["Cat"])},
            "^tensors and arithmetic only: .*; other scores there than here: 8 images and 29 ",
        ),
        (
            {"agrees": True, "processor": processor()},
            r"^same scores there: 8 images and 29 texts through its own processor \(Siglip",
        ),
        (
            {"agrees": True, "processor": processor(profile="transformers")},
            "^same scores there as here with the profile transformers: ",
        ),
        (
            {"agrees": True, "processor": processor(largest_difference={"image": 1e-7})},
            "^same embeddings there: ",
        ),
        (
            {
                "agrees": True,
                "processor": processor(pixels={"largest_difference": 1.0, "share": 0.02}),
            },
            "^same scores there, but for 2.0% of pixels that round to the next grey level: ",
        ),
        (
            {"agrees": True, "processor": processor(altered=["a  b"])},
            "^same scores there, but for 1 of the texts, which transformers rewrites: ",
        ),
        (
            {"agrees": True, "exact_gelu": ["image"], "processor": processor()},
            "^tensors and arithmetic only: .* with the exact GELU in the image tower; scores ",
        ),
    ],
)
def test_it_says_no_more_than_was_done(fine_tune, tmp_path, comparison, said):
    path, config = fine_tune
    _, made = certified(path, tmp_path / "hf", to="transformers", config=config, pad=1)
    found = with_findings(made, {"comparison": comparison} if comparison else {})
    assert re.search(said, found["certifies"]), found["certifies"]
    assert ("same scores there" in found["certifies"]) == said.startswith("^same scores there")


def test_it_names_no_folder(fine_tune, tmp_path):
    path, config = fine_tune
    record, made = certified(path, tmp_path / "hf", to="transformers", config=config, pad=1)
    assert str(tmp_path) not in json.dumps(made)
    assert (made["source"]["path"], made["target"]["path"]) == ("tune.npz", "hf")
    assert record.source["path"] == str(path)
