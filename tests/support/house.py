"""Measures the code as a whole: lines, modules, functions, repeated names.

    python tests/support/house.py

Docstrings and comments count as lines. A function's body is counted without its docstring.
"""

import ast
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from paths import REPO

ROOTS = {"siglip_jax": REPO / "siglip_jax", "siglip_jax.converters": REPO / "converters"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, Path]:
    """Full module name to file."""
    found: dict[str, Path] = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text("utf-8")) for name, path in modules().items()}


def body_lines(function: Function) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def shadowed() -> list[str]:
    """Modules that a name of their package hides: `from package import name` gives another."""
    found = []
    every = trees()
    for package, tree in every.items():
        for node in tree.body:
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                # `from package import module` gives the module itself, and hides nothing.
                names = [alias.asname or alias.name for alias in node.names]
                names = [] if node.module == package else names
            elif isinstance(node, Function | ast.ClassDef):
                names = [node.name]
            found += [f"{package}.{name}" for name in names if f"{package}.{name}" in every]
    return sorted(set(found))


def calls_of(function: str) -> list[str]:
    """Modules that call `function`, such as "get_close_matches", once for each call."""
    found = []
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func
                last = getattr(called, "attr", None) or getattr(called, "id", None)
                found += [name] if last == function else []
    return found


def classes_of_one_name() -> dict[str, list[str]]:
    """Public classes and functions at the top of modules whose name is taken in another package."""
    found = defaultdict(list)
    for name, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name)
    return {name: where for name, where in sorted(found.items()) if len(where) > 1}


def main() -> None:
    every = modules()
    lines = [line for path in every.values() for line in path.read_text("utf-8").splitlines()]
    bodies = [body_lines(function) for tree in trees().values() for function in functions(tree)]
    filled = [len(line) for line in lines if line.strip()]
    closest = calls_of("get_close_matches")
    print(f"package lines               {len(lines):,}")
    print(f"modules                     {len(every)}")
    print(f"functions                   {len(bodies):,}")
    print(f"median function body        {statistics.median(bodies)} lines")
    print(f"functions above 50 lines    {sum(body > 50 for body in bodies)}")
    print(f"median line, not blank      {statistics.median(filled)} characters")
    print(f"get_close_matches           {len(closest)} call(s): {', '.join(closest)}")
    print(f"modules hidden by a name    {', '.join(shadowed()) or 'none'}")
    print(f"classes of one name         {classes_of_one_name() or 'none'}")


if __name__ == "__main__":
    main()
