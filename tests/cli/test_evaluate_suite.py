"""`siglip-jax evaluate --suite`."""

import json

import pytest
from pair_files import png
from suite_folders import describe, tars, wds

from siglip_jax.cli.options import suite as options
from siglip_jax.suites import SUITES

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def root(tmp_path):
    samples = [{"png": png(n), "txt": f"dog {n}".encode()} for n in range(6)]
    wds(tmp_path / "root/wds_flickr8k", samples, 1)
    return tmp_path / "root"


def test_suites_are_those_of_the_library():
    assert tuple(SUITES) == options.SUITES


def test_a_table_and_what_is_missing(cli, model, root):
    argv = ("evaluate", root, "--suite", "retrieval", "--model", model, "--out", "out")
    code, out, err = cli(*argv)
    assert code == 2
    lines = out.splitlines()
    assert lines[0].split() == ["TASK", "METRIC", "OURS", "PUBLISHED", "DIFF.", "SAME", "SOURCE"]
    assert [line.split()[0] for line in lines[1:4]] == ["MSCOCO", "Flickr", "Flickr8k"]
    assert "no data" in lines[1] and "no data" in lines[2] and "no data" not in lines[3]
    assert "1 of 3 tasks of retrieval measured, with m and profile big_vision" in out
    assert any("flickr30k: no data: no folder wds_flickr30k in" in line for line in err)
    assert "--only flickr8k asks for no others" in err[-1]
    code, out, err = cli(*argv, "--only", "flickr8k", "--json")
    got = json.loads(out)
    assert (code, err) == (0, [])
    (result,) = got["results"]
    assert result == json.loads((root.parent / "out/metrics/flickr8k.json").read_text())
    assert (result["dataset"], result["language"]) == ("flickr8k", "en")
    assert "image_retrieval_recall@5" in result["metrics"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("root --suite retreival", "; did you mean retrieval?"),
        ("nowhere --suite retrieval", "nowhere: no such folder"),
        ("root --suite retrieval --only flickr8", "--only: none of the 3 tasks of retrieval is"),
        ("root --suite retrieval --task retrieval", "--task: a suite says what is measured"),
        ("root --suite retrieval --as-written", "--as-written: a suite says what is measured"),
        ("root --suite retrieval --figure a.gif", "--figure: expected a name that ends in .png"),
        ("root --suite vtab+ --only mnist", "mnist: root/wds_mnist: 6 class names, but this task"),
        ("root --task retrieval --only flickr8k", "--only is for --suite"),
        ("root", "say what is measured: --task TASK, or --suite NAME"),
        ("root root --suite retrieval", "--suite takes one DATA, which holds all tasks, got 2"),
        ("root --suite retrieval --class-names imagenet", "--class-names: a suite says what is"),
    ],
)
def test_bad_input(cli, model, root, argv, message):
    tars(root / "wds_mnist")
    describe(root / "wds_mnist")
    code, out, err = cli("evaluate", *argv.split(), "--model", model)
    assert (code, out) == (2, "")
    assert message in err[-1] and len(err) == 1
