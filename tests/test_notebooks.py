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


@pytest.mark.parametrize(
    "stem",
    [
        pytest.param("train_emoji", marks=pytest.mark.slow),
        "zero_shot",
        "batch_scoring",
        "probabilities",
        "evaluate",
    ],
)
def test_the_emoji_notebooks_still_run(monkeypatch, tmp_path, capsys, stem):
    """On a small budget: some steps of training in the place of hundreds."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    (path,) = [p for p in NOTEBOOKS if p.stem == stem]
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("SIGLIP_JAX_NOTEBOOK_STEPS", "8")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    names = {}
    try:
        for cell in cells(path):
            # Fonts without emoji or Chinese, texts longer than the context.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile("".join(cell["source"]), path.name, "exec"), names)
    finally:
        names["plt"].close("all")
    out = capsys.readouterr().out
    if stem == "train_emoji":
        assert "stopped after 4 of 8 steps" in out and "then 8 steps, finished: True" in out
        assert "optimiser is unknown; did you mean optimizer?" in out
    elif stem == "evaluate":
        assert out.count("measured: unseen_combinations") == 2
        stored = "".join("".join(o.get("text", "")) for c in cells(path) for o in c["outputs"])
        for title in ("ImageNet 1k", "ObjectNet", "datacomp"):
            (line,) = [line for line in out.splitlines() if line.startswith(title)]
            assert line in stored
    elif stem == "batch_scoring":
        assert "522 items in 6 shards, 1 in error" in out and "already finished: True" in out
        assert "holds another job: the labels differ" in out
    else:
        stored = "".join(
            "".join(o.get("text", "")) for cell in cells(path) for o in cell["outputs"]
        )
        # The same pictures and the same model: the same numbers, to a picture or two.
        said = r"NLL ([\d.]+) before" if stem == "probabilities" else r"right: ([\d.]+)%"
        ours, theirs = (re.search(said, text) for text in (out, stored))
        assert abs(float(ours[1]) - float(theirs[1])) < (0.1 if stem == "probabilities" else 1)
