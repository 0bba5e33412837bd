"""Fixtures of the tests of training."""

from shapes import compiled_once, data

__all__ = ["compiled_once", "data"]
