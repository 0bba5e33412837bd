"""Runs pyright over the package; `make lint` does.

The settings are `[tool.basedpyright]` in pyproject.toml. `siglip_jax.converters` is the
folder `converters/`, which setuptools maps and pyright does not: it is shown a copy in which
that folder lies where it is imported from.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from paths import REPO


def main() -> int:
    settings = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["basedpyright"]
    with tempfile.TemporaryDirectory() as scratch:
        # Copies: pyright does not go through links.
        package = shutil.copytree(REPO / "siglip_jax", Path(scratch, "siglip_jax"))
        shutil.copytree(REPO / "converters", package / "converters")
        config = Path(scratch, "pyrightconfig.json")
        config.write_text(json.dumps(settings | {"include": ["siglip_jax"]}))
        done = subprocess.run(
            ["basedpyright", "--pythonpath", sys.executable, "--project", config],
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        print(done.stdout.replace(f"{scratch}/", ""), end="")
        print(done.stderr, end="", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
