"""Fixtures of the tests of the command line."""

import pytest
from command_line import cli, hf, model, pictures, surroundings
from shapes import compiled_once, data

from siglip_jax.cli import progress

__all__ = ["cli", "compiled_once", "data", "hf", "model", "pictures", "surroundings"]


@pytest.fixture(autouse=True)
def no_line_of_a_log(monkeypatch):
    """What a command says on a busy machine is what it says on an idle one."""
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)
