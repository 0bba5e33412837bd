"""Packages that not everybody installs: every caller's message says what to install."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from siglip_jax import optional
from siglip_jax.optional import from_extra, optional_package

REPO = Path(__file__).parents[1]


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
    assert optional._EXTRAS.keys() <= project["optional-dependencies"].keys()


def test_a_package_of_another_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(ValueError, match=r"^absent is not installed; pip install absent-cpu$"):
        optional_package("absent", "absent-cpu")
    message = r"^data: absent is not installed, and tea needs it; pip install absent-cpu$"
    with pytest.raises(ValueError, match=message):
        optional_package("absent", "absent-cpu", name="data: absent", why="tea needs it")
