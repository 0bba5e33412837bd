"""Packages that not everybody installs: imported when used, or what to install."""

import importlib
from types import ModuleType

# Extras of pyproject.toml, and what is not possible without their packages.
_EXTRAS = {
    "jobs": "jobs need it",
    "plan": "saved programs need it",
    "train": "reading training data needs it",
}


def from_extra(extra: str, module: str) -> ModuleType:
    """A module of a package that comes with an extra: "jobs", "plan" or "train".

    >>> from_extra("jobs", "no_such.table")
    Traceback (most recent call last):
    ValueError: no_such is not installed, and jobs need it; pip install 'siglip-jax[jobs]'

    Raises:
      ValueError: one line that says what to install.
    """
    return optional_package(module, f"'siglip-jax[{extra}]'", why=_EXTRAS[extra])


def optional_package(
    module: str, install: str, *, name: str | None = None, why: str | None = None
) -> ModuleType:
    """A module of a package that not everybody installs.

    Args:
      module: what to import.
      install: what to give to `pip install`.
      name: what the message calls the package; what Python calls it unless given.
      why: who needs it, as a sentence.

    >>> optional_package("no_such", "no-such-cpu")
    Traceback (most recent call last):
    ValueError: no_such is not installed; pip install no-such-cpu

    Raises:
      ValueError: one line that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = name or module.partition(".")[0]
        reason = f", and {why}" if why else ""
        raise ValueError(f"{name} is not installed{reason}; pip install {install}") from error
