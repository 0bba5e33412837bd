"""The notebooks: their outputs are stored, name no machine, and their cells still run."""

import json
import os
import re
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def cells(path):
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_executed_from_top_to_bottom(path):
    code = cells(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/(tmp|work|root|home|Users)/", path.read_text("utf-8"))


def test_the_conversion_still_runs(monkeypatch, tmp_path, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    (path,) = [p for p in NOTEBOOKS if p.stem == "convert"]
    names = {}
    try:
        for cell in cells(path):
            source = "".join(cell["source"])
            # The other library may be there, and warn.
            with warnings.catch_warnings():
                if "--compare" in source:
                    warnings.simplefilter("ignore")
                exec(compile(source, path.name, "exec"), names)
    finally:
        names["plt"].close("all")
        os.chdir(tmp_path)
        names["folder"].cleanup()
    out = capsys.readouterr().out
    stored = "".join("".join(o.get("text", "")) for cell in cells(path) for o in cell["outputs"])
    # Every command says what it said when the notebook was executed.
    for line in re.findall(r"^(?:\$ |written|identical|round trip|tensors).*$", out, re.M):
        assert line in stored
    assert out.count("(exit code 0)") >= 7 and out.count("(exit code 1)") == 1
