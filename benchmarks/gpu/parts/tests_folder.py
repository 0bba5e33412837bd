"""The tests' own helpers, tolerances and golden data, for parts that use them."""

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
TESTS = REPO / "tests"


def importable() -> None:
    """Modules of `tests/support/` can be imported from now on."""
    if str(TESTS / "support") not in sys.path:
        sys.path.append(str(TESTS / "support"))
