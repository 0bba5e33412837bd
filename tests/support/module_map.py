"""The map of modules, from the table in tests/test_architecture.py; run it to write it.

It is siglip_jax/README.md, and part of the documentation's page on architecture.
"""

import ast
import importlib.util
import re
import textwrap

from generated import write_between
from paths import REPO, TESTS

PAGE = REPO / "siglip_jax" / "README.md"


def architecture():
    """The test module that holds the table."""
    spec = importlib.util.spec_from_file_location("architecture", TESTS / "test_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_map() -> str:
    """Markdown: the order of dependencies, then each package with its modules."""
    table = architecture()
    layers = re.search(r"^( {4}\S.*\n)+", table.__doc__, flags=re.MULTILINE)[0]
    out = [f"Imports go down this list and never up:\n\n```text\n{textwrap.dedent(layers)}```\n"]
    packages: dict[str, list[str]] = {}
    for name, path in table.files().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        packages.setdefault(package, []).append(name)
    for package in sorted(packages, key=lambda p: order(table, p)):
        out.append(f"\n## {package}\n\n| module | what it is | imports jax |\n|---|---|---|\n")
        out += [line(table, name) for name in sorted(packages[package])]
    return "".join(out)


def order(table, package: str) -> tuple[int, str]:
    """Packages as the table has them; a package of a package after it."""
    names = list(table.MODULES)
    first = table.short(package).partition(".")[0] if package != "siglip_jax" else package
    return names.index(first), package


def line(table, module: str) -> str:
    """A row: a module's purpose by the table, or by its own docstring where that has a pattern."""
    name, row = table.short(module), table.row(module)
    purpose = row.purpose
    if name not in table.MODULES:
        doc = ast.get_docstring(ast.parse(table.files()[module].read_text("utf-8"))) or purpose
        purpose = " ".join(doc.partition("\n\n")[0].split()).rstrip(".").replace("|", "\\|")
    return f"| `{name}` | {purpose} | {'yes' if row.jax else ''} |\n"


if __name__ == "__main__":
    write_between(PAGE, module_map())
