"""Fixtures of the tests of the command line."""

from command_line import cli, hf, model, pictures, surroundings
from shapes import compiled_once, data

__all__ = ["cli", "compiled_once", "data", "hf", "model", "pictures", "surroundings"]
