"""Every format, damaged from fixed seeds: success or one line, in 20 s and 1 GB, nothing run.

`make fuzz` runs more cases: FUZZ_CASES of each format, FUZZ_SECONDS at most.
A case is found again with tests/support/fuzz_worker.py FORMAT NUMBER NUMBER+1 60.
"""

import os
import subprocess
import sys

import pytest
from fuzz_formats import FORMATS
from paths import SUPPORT

CASES = int(os.environ.get("FUZZ_CASES", "200"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, tmp_path, record_property):
    canary = tmp_path / "CANARY"
    for program in ("gs", "sh", "touch", "curl"):
        (tmp_path / program).write_text(f"#!/bin/bash\n: > {canary}\n")
        (tmp_path / program).chmod(0o755)
    surroundings = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
    }
    failures, first, done = [], 0, 0
    # A case that ends the process is a failure; the next process goes on behind it.
    while first < CASES and len(failures) < 10:
        worker = [SUPPORT / "fuzz_worker.py", name, first, CASES, SECONDS]
        ended = subprocess.run(
            [sys.executable, *map(str, worker)],
            capture_output=True,
            text=True,
            env=surroundings,
            check=False,
        )
        lines = ended.stdout.splitlines()
        failures += [line for line in lines if line.startswith("FAIL")]
        ran = [int(line) for line in lines if line.isdigit()]
        done += len(ran)
        if lines[-1:] == ["done"]:
            break
        at = ran[-1] if ran else first
        failures.append(f"case {at} ended the process: {ended.returncode} {ended.stderr[-600:]}")
        first = at + 1
    record_property("cases", done)
    print(f"{name}: {done:,} cases")
    assert failures == []
    assert done or CASES == 0
    assert not canary.exists()
