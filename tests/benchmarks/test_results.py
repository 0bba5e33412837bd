"""RESULTS.md: every result says its command, machine and date; docstrings hold methods only."""

import ast
import re

import pytest
from paths import REPO

BENCHMARKS = REPO / "benchmarks"
SECTIONS = re.split(r"^## ", (BENCHMARKS / "RESULTS.md").read_text("utf-8"), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.partition("\n")[0])
def test_a_result_says_where_it_is_from(section):
    command = re.search(r"^- command: `(.+)`$", section, flags=re.MULTILINE)[1]
    script = re.search(r"python (\S+\.py)", command)[1]
    assert (REPO / script).is_file()
    assert re.search(r"^- machine: \S", section, flags=re.MULTILINE)
    assert re.search(r"^- date: 20\d\d-\d\d-\d\d", section, flags=re.MULTILINE)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_docstring_holds_the_method_only(path):
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert not re.search(r"[Mm]easured on|\b\d[\d,.]* images/s|\b\d+ cores\b", docstring)
