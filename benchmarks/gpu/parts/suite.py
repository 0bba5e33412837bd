"""The project's own conformance tests, run by pytest on this device."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

from parts import tests_folder
from results import Results

FILES = (
    "models/test_conformance.py",
    "models/test_models.py",
    "preprocessing/test_device_resize.py",
)
# tests/conftest.py: shapes of all arguments are checked while the tests run.
NEEDED = ("pytest", "beartype")


def run(results: Results) -> None:
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            results.skipped("suite", f"{name} is not installed")
            return
    # The tests are for the CPU unless told otherwise; some need eight devices and skip.
    platforms = {"gpu": "cuda,cpu", "tpu": "tpu,cpu"}.get(results.platform, "cpu")
    platforms = "cpu" if results.scale.rehearsal else platforms
    with tempfile.TemporaryDirectory() as temporary:
        xml_file = Path(temporary) / "junit.xml"
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "no:benchmark"]  # it warns where tests run beside each other
        command += [f"--junitxml={xml_file}"]
        if not results.scale.rehearsal and importlib.util.find_spec("xdist") is not None:
            # Each test compiles, which takes a core; most of a TPU's time one process has it.
            command += ["-n", str(1 if results.platform == "tpu" else (os.cpu_count() or 2) // 2)]
        command += [str(tests_folder.TESTS / file) for file in FILES]
        if results.scale.rehearsal:
            command = [*command[: -len(FILES) + 1], "-k", "test_attention_function"]
        subprocess.run(
            command,
            cwd=tests_folder.REPO,
            env=os.environ | {"JAX_PLATFORMS": platforms},
            timeout=max(1.0, results.left() - 1),
        )
        report(results, xml_file)


def report(results: Results, file: Path) -> None:
    cases = xml.etree.ElementTree.parse(file).getroot().iter("testcase")
    outcomes: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    for each in cases:
        kinds = {child.tag for child in each}
        outcome = "failed" if kinds & {"failure", "error"} else "passed"
        outcome = "skipped" if "skipped" in kinds else outcome
        outcomes[outcome].append(each.get("name", ""))
    counts = {name: len(each) for name, each in outcomes.items()}
    results.measured("pytest", **counts)
    results.check("tests that fail", counts["failed"], 0, names=outcomes["failed"])
    results.check("no test ran", float(not counts["passed"]), 0)
