"""README, pages and what is generated in them: short, true, and every command parses."""

import ast
import os
import re
import shlex
import subprocess

import checkpoint_table
import module_map
import numpy as np
import pytest
from generated import between
from paths import REPO, TESTS
from PIL import Image
from saved_model import saved

import siglip_jax
from siglip_jax.cli.main import make_parser

README = REPO / "README.md"
PAGES = [README, REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks(page, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text("utf-8")) if name == language]


def text(page) -> str:
    return page.read_text("utf-8")


def test_the_readme_is_short():
    prose = FENCE.sub("", README.read_text("utf-8"))
    words = [line.split() for line in prose.splitlines() if not line.startswith("|")]
    assert sum(map(len, words)) <= 500


@pytest.mark.parametrize(
    ("given", "venv"),
    [
        ([], ".venv"),
        (["PYTHON=python3"], ".venv"),
        (["PYTHON=python3.13"], ".venv-python3.13"),
        (["PYTHON=/opt/python/bin/python3.12"], ".venv-python3.12"),
        (["PYTHON=python3.13", "VENV=elsewhere"], "elsewhere"),
    ],
)
def test_each_python_has_an_environment_of_its_own(given, venv):
    """Another Python's would be used in silence, for it is there already."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHON", "VENV", "MAKEFLAGS", "MAKELEVEL")
    }
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", "--no-print-directory", "lint", *given],
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    python = given[0].partition("=")[2] if given else "python3"
    assert said[0] == f"{python} -m venv {venv}" and f"{venv}/bin/ruff check" in said


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text("utf-8"))
    assert len(links) > 20
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (REPO / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_pages_name_exist(page):
    """Of this project: in backticks, from the top of the repository."""
    tops = "|".join(path.name for path in REPO.iterdir() if not path.name.startswith("."))
    named = re.findall(rf"`((?:{tops})/[\w/.-]*(?:/|\.\w+))`", text(page))
    named = [name for name in named if "NAME" not in name and "_build" not in name]
    assert [name for name in named if not (REPO / name).exists()] == []


@pytest.mark.parametrize("made", [checkpoint_table.table, module_map.module_map])
def test_tables_are_generated(made):
    page = {"table": checkpoint_table.PAGE, "module_map": module_map.PAGE}[made.__name__]
    assert between(page) == made(), "run `make readme`"


def test_the_table_has_all_checkpoints():
    assert len(re.findall(r"^\| `siglip", checkpoint_table.table(), flags=re.MULTILINE)) == 27


def command_lines() -> list[tuple[str, str]]:
    """Of shell blocks, and of cells, where a line begins with an exclamation mark."""
    found = []
    for page in PAGES:
        for _, code in FENCE.findall(page.read_text("utf-8")):
            for line in code.replace("\\\n", " ").splitlines():
                if line.removeprefix("!").startswith("siglip-jax "):
                    found.append((page.stem, " ".join(line.removeprefix("!").split())))
    return found


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_parse(page, line):
    words = shlex.split(re.split(r" #| \|\|? ", line)[0])[1:]
    if words == ["--help"]:
        return
    args = make_parser().parse_args(words)
    assert callable(args.run)


def test_make_targets_exist():
    makefile = (REPO / "Makefile").read_text()
    named = "\n".join(block for page in PAGES for block in blocks(page, "sh"))
    named += "".join(re.findall(r"`make [a-z]+`", "".join(map(text, PAGES))))
    targets = set(re.findall(r"make ([a-z]+)", named))
    assert targets >= {"demo", "check", "docs", "readme"}
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, flags=re.MULTILINE)] == []


def test_the_quick_start_runs(tmp_path, monkeypatch, capsys):
    """With a tiny model in the place of the real one, which is 813 MB away."""
    folder = saved(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((60, 40), 50).convert("RGB").save("photo.jpg")
    load = siglip_jax.load
    asked = []

    def fake(name, **kw):
        asked.append(name)
        return load(folder, **kw)

    monkeypatch.setattr(siglip_jax, "load", fake, raising=False)
    (code,) = blocks(README, "python")
    scope: dict = {}
    exec(code, scope)
    assert asked == ["ViT-B-16-SigLIP"]
    assert scope["scores"].labels == ("a dog", "a cat", "a donut", "a beignet")
    assert np.isfinite(scope["scores"].probabilities).all()
    assert "a donut" in capsys.readouterr().out


def test_the_commands_of_the_quick_start_run(tmp_path, monkeypatch, capsys):
    """On one device, as written, but for the installing and for where the model comes from.

    The service and what is asked of it: tests/serve/test_clients.py.
    """
    from siglip_jax.cli.main import main

    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((60, 40), 50).convert("RGB").save("photo.jpg")
    saved(tmp_path / "ViT-B-16-SigLIP")
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    ran = [line for line in lines if line.startswith("siglip-jax score ")]
    known = ("make ", "pip ", "curl localhost:8000/", "siglip-jax serve ")
    assert ran and all(line.startswith(known) for line in lines if line not in ran)
    for line in ran:
        assert main(shlex.split(line)[1:]) == 0
        assert "a beignet" in capsys.readouterr().out


def test_the_recipe_is_one():
    import tomllib

    from siglip_jax.training import recipe_from_dict

    text, adapter = blocks(REPO / "docs" / "training.md", "toml")
    recipe = recipe_from_dict(tomllib.loads(text))
    # What a recipe of an adapter has beside these is in the first.
    rest = {key: tomllib.loads(text)[key] for key in ("steps", "batch", "data")}
    lora = recipe_from_dict(tomllib.loads(adapter) | rest).lora
    assert lora is not None and lora.rank == 16
    assert recipe.parameters[0].frozen and recipe.optimizer.lr == 1e-4


def pinned() -> list[tuple[str, str]]:
    """(test file, test function or nothing) of every row of the quirks' first table."""
    table = text(REPO / "docs" / "quirks.md").partition("\n## ")[0]
    found = []
    for row in re.findall(r"^\| .*\| (.*) \|$", table, flags=re.MULTILINE)[1:]:
        file = ""
        for name, function in re.findall(r"`([\w/]*)(?:::(\w+))?(?:\[\w+\])?`", row):
            file = name or file
            found.append((file, function))
    return found


@pytest.mark.parametrize(("file", "function"), pinned())
def test_quirks_are_pinned_by_tests_that_exist(file, function):
    tree = ast.parse((TESTS / f"{file}.py").read_text("utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not function or function in names


def test_the_quirks_are_many():
    assert len(pinned()) > 25
