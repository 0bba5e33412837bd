"""Ray Data, Spark and Beam: all rows come back once, though workers die; `make check-engines`."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
import pytest
from emoji_pictures import PICTURES
from paths import REPO, SUPPORT

pytestmark = pytest.mark.slow


def run(script, *arguments, folder, **more):
    """What a script printed, once it has ended well."""
    kept = folder / "compiled"
    kept.mkdir(mode=0o700)
    surroundings = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(kept),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(SUPPORT),
        "XLA_FLAGS": "",
        **more,
    }
    done = subprocess.run(
        [sys.executable, SUPPORT / script, *arguments],
        cwd=folder, env=surroundings, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def needs(module, name):
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"needs {name}: make check-engines")
    if module == "pyspark" and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java: apt-get install default-jre-headless")


# Of containers, by which Ray measures instead.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory():
    """Bytes in all, and in use."""
    limits = [Path(path).read_text().strip() for path in LIMITS if Path(path).exists()]
    if any(limit.isdigit() and int(limit) < 1 << 50 for limit in limits):
        pytest.skip("the memory of this container is limited, of which an actor takes 6 GiB")
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    found = {name: int(size) * 1024 for name, size, *_ in lines}
    return found["MemTotal:"], found["MemTotal:"] - found["MemAvailable:"]


RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@pytest.mark.parametrize("what", ["killed", "lost_node"])
def test_ray_data_loses_no_row(what, tmp_path):
    needs("ray.data", "Ray Data")
    said = run("ray_tables.py", what, tmp_path, folder=tmp_path, **RAY)
    assert int(said.split()[-2]) >= 3, "nothing has been replaced"


def test_ray_data_replaces_an_actor_that_takes_all_memory(tmp_path):
    needs("ray.data", "Ray Data")
    total, used = memory()
    if total - used < 14 << 30:
        pytest.skip("needs 14 GiB of free memory, of which an actor takes 6 and is ended for it")
    # Ray ends a worker once so much is in use; all that is not the actor's takes less.
    limit = {"RAY_memory_usage_threshold": str((used + (5 << 30)) / total)}
    limit |= {"RAY_memory_monitor_refresh_ms": "250"}
    said = run("ray_tables.py", "memory", tmp_path, folder=tmp_path, **RAY, **limit)
    assert int(said.split()[-2]) >= 3, "nothing has been replaced"


def test_spark_loses_no_row(tmp_path):
    needs("pyspark", "PySpark")
    run("spark_tables.py", tmp_path, folder=tmp_path, PYSPARK_PYTHON=sys.executable)


def test_beam_loses_no_row(tmp_path):
    needs("apache_beam", "Apache Beam")
    run("beam_tables.py", tmp_path, folder=tmp_path)


@pytest.mark.parametrize(
    ("section", "module"),
    [("Ray Data", "ray.data"), ("Spark", "pyspark"), ("Apache Beam", "apache_beam")],
)
def test_what_the_page_shows_runs(section, module, tmp_path):
    needs(module, section)
    shutil.copytree(PICTURES[0].parent, tmp_path / "photos")
    page = (REPO / "docs" / "engines.md").read_text("utf-8").partition(f"## {section}\n")[2]
    shown = re.search(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)[1]
    # This machine has neither a GPU nor four cores.
    script = shown.replace("num_gpus=1", "num_cpus=1").replace("size=4", "size=1")
    (tmp_path / "shown.py").write_text(script, "utf-8")
    run(tmp_path / "shown.py", folder=tmp_path, PYSPARK_PYTHON=sys.executable, **RAY)
    if module == "apache_beam":
        written = [path.read_text() for path in (tmp_path / "embeddings").iterdir()]
        lines = "".join(written).splitlines()
        assert len(lines) == len(PICTURES) and all("\t\t[" in line for line in lines)
        return
    files = [str(path) for path in (tmp_path / "embeddings").glob("*.parquet")]
    table = pyarrow.dataset.dataset(files).to_table()
    assert len(table) == len(PICTURES) and set(table["error"].to_pylist()) == {""}
    assert {len(row) for row in table["embedding"].to_pylist()} == {192}
