"""Every example in a docstring runs; every public name has a docstring and an example."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
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


def public():
    for name in siglip_jax.__all__:
        value = getattr(siglip_jax, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def test_all_names_exist():
    assert set(siglip_jax.__all__) >= {"load", "save", "find", "Scorer"}
    assert len(dict(public())) >= 10
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        siglip_jax.laod  # noqa: B018


@pytest.mark.parametrize(("name", "value"), list(public()), ids=[name for name, _ in public()])
def test_public_names_are_documented(name, value):
    # What a dataclass inherits is its signature, no docstring.
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")
    plain = dataclasses.is_dataclass(value) or hasattr(value, "_fields")
    assert ">>> " in value.__doc__ or plain, "give it a short example"
