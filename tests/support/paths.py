"""Where things lie in the checkout."""

from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
FIXTURES = TESTS / "fixtures"
REPO = TESTS.parent
# Golden data of a workplace that has them; absent in a fresh clone.
SHARED = REPO.parent / "shared"
