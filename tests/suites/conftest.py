"""Fixtures of the tests of suites."""

import pytest
from saved_model import saved
from shapes import compiled_once
from suite_folders import write

import siglip_jax

__all__ = ["compiled_once"]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The folder of a small suite."""
    return write(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    saved(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder):
    return siglip_jax.load(str(model_folder))
