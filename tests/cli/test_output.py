"""JSON is valid whatever stdout can write."""

import io
import json
import sys

import pytest

from siglip_jax.cli.output import print_json

VALUE = {"label": "ein Häuschen 🏠", "file": "b\udcff.png"}


@pytest.mark.parametrize(("encoding", "readable"), [("utf-8", True), ("ascii", False)])
def test_json_is_valid_in_any_encoding(monkeypatch, encoding, readable):
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stdout)
    print_json(VALUE)
    stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert json.loads(text) == VALUE
    assert ("Häuschen" in text) == readable
