"""Sphinx configuration of the documentation; `make docs` builds it."""

import importlib
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

_DOCS = Path(__file__).parent
# Sphinx reads what lies in its own folder.
shutil.copytree(_DOCS.parent / "notebooks", _DOCS / "notebooks", dirs_exist_ok=True)

# Examples run on the CPU, with caches of their own, by the Python that builds the pages.
_BUILD = _DOCS / "_build"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["SIGLIP_JAX_HOME"] = str(_BUILD / "home")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_BUILD / "compiled")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# A command in a cell (`!siglip-jax ...`) writes into a pipe, as in a script: no progress bars.
_STARTUP = """\
import subprocess

def _run(command):
    done = subprocess.run(
        command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {command}")

get_ipython().system = _run
"""
os.environ["IPYTHONDIR"] = str(_BUILD / "ipython")
_startup = _BUILD / "ipython" / "profile_default" / "startup" / "shell.py"
_startup.parent.mkdir(parents=True, exist_ok=True)
_startup.write_text(_STARTUP, "utf-8")

project = "siglip_jax"
author = "the siglip_jax authors"
project_copyright = "the siglip_jax authors, Apache-2.0"
release = importlib.metadata.version("siglip-jax")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
# Attributes of the same name in two classes are no mistake.
suppress_warnings = ["ref.python"]
html_theme = "sphinx_book_theme"
html_title = "siglip_jax"
html_theme_options = {"show_toc_level": 2}

# Pages execute their cells in a folder that is thrown away. The notebooks show the outputs they
# were committed with: tests/test_notebooks.py runs them.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["notebooks/*"]
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Docstrings are Google's style with Markdown's backticks.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

PACKAGES = (
    "siglip_jax",
    "siglip_jax.preprocessing",
    "siglip_jax.models",
    "siglip_jax.programs",
    "siglip_jax.calibration",
    "siglip_jax.scoring",
    "siglip_jax.explain",
    "siglip_jax.data",
    "siglip_jax.evaluation",
    "siglip_jax.suites",
    "siglip_jax.training",
    "siglip_jax.jobs",
    "siglip_jax.search",
    "siglip_jax.batch",
    "siglip_jax.converters",
    "siglip_jax.plan",
    "siglip_jax.bench",
)
# Names that a package imports on first use are no attributes yet, and autodoc would not see them.
for _package in map(importlib.import_module, PACKAGES):
    for _name in _package.__all__:
        setattr(_package, _name, getattr(_package, _name))


def _skip(app, what, name, obj, skip, options):
    """Fields of a NamedTuple are described under its attributes already."""
    return True if type(obj).__name__ == "_tuplegetter" else skip


def setup(app):
    app.connect("autodoc-skip-member", _skip)
