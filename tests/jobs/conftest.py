"""Fixtures of the tests of bulk jobs."""

from shapes import compiled_once

__all__ = ["compiled_once"]
