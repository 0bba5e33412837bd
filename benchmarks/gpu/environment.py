"""The environment of every part."""

import os
import tomllib
from pathlib import Path

REPO = Path(__file__).parents[2]


def environment(scratch: Path) -> dict[str, str]:
    """What every part runs under: this checkout, memory shared by processes, caches in common."""
    return {
        "PYTHONPATH": os.pathsep.join(
            [str(importable(scratch / "package")), os.environ.get("PYTHONPATH", "")]
        ).rstrip(os.pathsep),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "SIGLIP_JAX_HOME": str(scratch / "home"),
    }


def importable(folder: Path) -> Path:
    """A folder from which this checkout is imported, whether or not it is installed.

    `siglip_jax.converters` lies elsewhere in the checkout than in the package, whose version
    is asked for, too.
    """
    package = folder / "siglip_jax"
    package.mkdir(parents=True)
    for entry in (REPO / "siglip_jax").iterdir():
        (package / entry.name).symlink_to(entry)
    (package / "converters").symlink_to(REPO / "converters")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    facts = folder / f"siglip_jax-{project['version']}.dist-info"
    facts.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    (facts / "METADATA").write_text("\n".join([*lines, ""]))
    return folder
