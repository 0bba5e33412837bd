"""Every example in a docstring runs; every public name has a docstring and an example."""

import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import siglip_jax
import siglip_jax.converters

PACKAGES = (siglip_jax, siglip_jax.converters)
MODULES = sorted(
    {package.__name__ for package in PACKAGES}
    | {
        found.name
        for package in PACKAGES
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # an example may write files
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
    # No example is skipped because the finder does not see it, behind a decorator say.
    source = Path(module.__file__).read_text("utf-8")
    assert results.attempted == sum(line.strip().startswith(">>> ") for line in source.splitlines())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__doc__ or not Path(module.__file__).read_text().strip()


# What an example would need: a link to where one runs instead.
ELSEWHERE = {
    "data.Batches": "files of images with captions: notebooks/train_emoji.ipynb",
    "data.captions_of": "files of images with captions: tests/data",
    "data.open_pairs": "files of images with captions: notebooks/train_emoji.ipynb",
    "jobs.embed": "a folder of images: docs/similarity_search.md and search.search",
    "jobs.score": "a folder of images: docs/jobs.md",
    "jobs.read_manifest": "a finished job: docs/jobs.md",
    "programs.load_program": "a file of plan --save: docs/planning.md",
    "programs.save_program": "a compiled model: docs/planning.md",
    "suites.run_suite": "a folder of data sets: docs/reproducing_the_paper.md",
    "suites.table": "a suite that was run: docs/reproducing_the_paper.md",
    "converters.convert": "a checkpoint: docs/converting.md",
    "converters.detect": "a checkpoint: docs/converting.md",
    "converters.open_checkpoint": "a checkpoint: docs/converting.md",
    "converters.plan": "a checkpoint: notebooks/convert.ipynb",
}
# Packages of the first level with an `__all__`; what each lists is its API.
FACES = [
    name
    for name in MODULES
    if name.count(".") < 2
    and Path(importlib.util.find_spec(name).origin).name == "__init__.py"
    and hasattr(importlib.import_module(name), "__all__")
]


def public():
    """Every function and class that a package lists, once, as `package.name`."""
    seen = {}
    for package in FACES:
        for name in importlib.import_module(package).__all__:
            value = getattr(importlib.import_module(package), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                short = f"{package}.{name}".removeprefix("siglip_jax.")
                seen.setdefault(id(value), (short, value))
    return list(seen.values())


def test_all_names_exist():
    assert set(siglip_jax.__all__) >= {"load", "save", "find", "Scorer"}
    assert len(public()) >= 80
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        siglip_jax.laod  # noqa: B018


@pytest.mark.parametrize(("name", "value"), public(), ids=[name for name, _ in public()])
def test_public_names_are_documented(name, value):
    # What a dataclass inherits is its signature, no docstring.
    assert value.__doc__ and not value.__doc__.startswith(f"{name.rpartition('.')[2]}(")
    plain = (
        dataclasses.is_dataclass(value)
        or hasattr(value, "_fields")
        or getattr(value, "_is_protocol", False)
        or (inspect.isclass(value) and issubclass(value, Exception))
    )
    shown = ">>> " in value.__doc__ or re.search(r"See \S+ for an example", value.__doc__)
    assert shown or plain or name in ELSEWHERE, "give it a short example"
    assert not (">>> " in value.__doc__ and name in ELSEWHERE), "take it out of ELSEWHERE"


def test_no_reason_is_left_over():
    assert set(ELSEWHERE) <= {name for name, _ in public()}


@pytest.mark.parametrize("name", FACES)
def test_the_reference_has_every_package(name):
    pages = (Path(__file__).parents[1] / "docs" / "api").glob("*.md")
    named = "".join(page.read_text("utf-8") for page in pages)
    assert re.search(rf"automodule:: {re.escape(name)}$", named, flags=re.MULTILINE)
