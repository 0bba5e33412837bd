"""The shared pieces of messages: one way to suggest a name, one line for a reason."""

import ast
import json
import sys
import tomllib
import urllib.error
from pathlib import Path

import pytest

from siglip_jax.messages import (
    EXTRAS,
    choose,
    from_extra,
    near_file,
    near_part,
    optional_package,
    reason,
    suggestions,
)

REPO = Path(__file__).parents[1]
# Still to be moved onto siglip_jax.messages; nothing is added here.
OTHERS = {
    "siglip_jax/data/pair.py",
    "siglip_jax/data/pairs.py",
    "siglip_jax/jobs/sources/storage.py",
    "siglip_jax/found.py",
    "siglip_jax/weights/source.py",
    "converters/files.py",
    "converters/timm.py",
}


def test_one_module_measures_how_alike_names_are():
    users = {
        str(path.relative_to(REPO))
        for folder in ("siglip_jax", "converters", "recipes", "benchmarks")
        for path in (REPO / folder).rglob("*.py")
        if any(
            alias.name == "difflib"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Import)
            for alias in node.names
        )
    }
    assert users - OTHERS == {"siglip_jax/messages.py"}


def test_a_suggestion_is_spelled_as_it_is_known():
    assert suggestions("vit-b-16-siglp", ["ViT-B-16-SigLIP", "ViT-L-16"]) == ["ViT-B-16-SigLIP"]
    assert suggestions("zzz", ["ViT-B-16-SigLIP"]) == []
    # Of names equally alike the one that differs latest comes first.
    assert suggestions("a_10", ["b_10", "a_11"], 2) == ["a_11", "b_10"]


def test_a_choice_of_the_wrong_type():
    with pytest.raises(ValueError, match=r"^res must be one of a, b, got \['a'\]$"):
        choose("res", ["a"], ("a", "b"))


def test_a_slip_in_one_part_of_a_path():
    names = ["img/a/kernel", "img/a/bias", "img/a/b/kernel"]
    assert near_part("img/a/kernal", names) == "img/a/kernel"
    assert near_part("img/c/bais", names) is None
    assert near_part("img/a/scale", names) is None


def test_a_file_of_a_like_name(tmp_path):
    (tmp_path / "picture.png").touch()
    assert near_file(tmp_path / "pictur.png") == f"; did you mean {tmp_path / 'picture.png'}?"
    assert near_file(tmp_path / "zebra.png") == ""
    assert near_file(tmp_path / "no" / "a.png") == f"; there is no folder {tmp_path / 'no'}"


def test_a_reason_is_one_line():
    inner = ConnectionRefusedError(111, "Connection refused")
    assert reason(urllib.error.URLError(inner)) == "Connection refused"
    assert reason(RuntimeError("first\nsecond")) == "first"
    assert reason(RuntimeError()) == "RuntimeError"


def test_what_is_installed_is_returned():
    assert from_extra("jobs", "json.decoder") is sys.modules["json.decoder"]
    assert optional_package("json", "anything") is json


@pytest.mark.parametrize("extra", ["jobs", "plan", "train"])
def test_an_extra(monkeypatch, extra):
    monkeypatch.setitem(sys.modules, "absent", None)
    message = rf"^absent is not installed, and .* needs? it; pip install 'siglip-jax\[{extra}\]'$"
    with pytest.raises(ValueError, match=message):
        from_extra(extra, "absent.part")


def test_the_extras_are_there():
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    assert EXTRAS.keys() <= project["optional-dependencies"].keys()


def test_a_package_of_another_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(ValueError, match=r"^absent is not installed; pip install absent-cpu$"):
        optional_package("absent", "absent-cpu")
    message = r"^data: absent is not installed, and tea needs it; pip install absent-cpu$"
    with pytest.raises(ValueError, match=message):
        optional_package("absent", "absent-cpu", name="data: absent", why="tea needs it")
