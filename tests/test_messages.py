"""The shared pieces of messages: one way to suggest a name, one line for a reason."""

import ast
import json
import re
import sys
import tomllib
import urllib.error
from pathlib import Path

import pytest

from siglip_jax.messages import (
    choose,
    near_file,
    near_part,
    not_installed,
    optional_package,
    reason,
    requirement,
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
    assert optional_package("json.decoder") is sys.modules["json.decoder"]
    assert optional_package("json", "anything") is json


def test_what_to_install_is_what_the_project_states(monkeypatch):
    """In quotes where a shell needs them, and no extra of a package that no index has."""
    monkeypatch.setitem(sys.modules, "grain", None)
    message = r'^grain is not installed, and tea needs it; pip install "grain<0\.3,>=0\.2\.10"$'
    with pytest.raises(ValueError, match=message):
        optional_package("grain", why="tea needs it")
    assert requirement("fsspec") == '"fsspec[http]>=2024.6"'
    assert requirement("orbax").startswith('"orbax-checkpoint')
    assert requirement("absent") == "absent"


def test_a_failed_import_of_what_is_not_ours():
    missing = ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet")
    assert not_installed(missing) == 'pyarrow is not installed; pip install "pyarrow>=16"'
    ours = ModuleNotFoundError("No module named 'siglip_jax.tea'", name="siglip_jax.tea")
    assert not_installed(ours) is None


def test_no_message_names_an_extra_of_ours():
    """`pip install 'siglip-jax[x]'` asks an index, which need not have this package."""
    pages = [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *REPO.glob("notebooks/*.ipynb")]
    code = [
        file
        for top in ("siglip_jax", "converters", "benchmarks", "recipes")
        for end in ("*.py", "*.md")
        for file in (REPO / top).rglob(end)
        if "results" not in file.parts  # records of what was said
    ]
    named = [file for file in pages + code if "siglip-jax[" in file.read_text("utf-8")]
    assert [file.name for file in named if file.name != "CHANGELOG.md"] == []


def test_what_jobs_import_is_installed_with_the_package():
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    always = {re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]}
    assert always >= {"pyarrow", "fsspec", "flatbuffers"}


def test_a_package_of_another_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(ValueError, match=r"^absent is not installed; pip install absent-cpu$"):
        optional_package("absent", "absent-cpu")
    message = r"^data: absent is not installed, and tea needs it; pip install absent-cpu$"
    with pytest.raises(ValueError, match=message):
        optional_package("absent", "absent-cpu", name="data: absent", why="tea needs it")
