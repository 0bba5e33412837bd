"""The container and its two examples say what the command and its service have."""

import re
import shlex

import pytest
import yaml
from paths import REPO

from siglip_jax.cli.main import make_parser

FOLDER = REPO / "recipes/serve"


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


def inside(value, key):
    """Every value of `key`, however deep."""
    if isinstance(value, dict):
        found = [value[key]] if key in value else []
        return found + [each for part in value.values() for each in inside(part, key)]
    if isinstance(value, list):
        return [each for part in value for each in inside(part, key)]
    return []


@pytest.mark.parametrize("name", ["kubernetes.yaml", "cloud_run.yaml"])
def test_probes_ask_for_paths_that_answer(name):
    from siglip_jax.serve.endpoints import about

    known = {each.path for each in about.OPERATIONS}
    probes = [probe["path"] for probe in inside(documents(name), "httpGet")]
    assert len(probes) >= 2
    assert set(probes) <= known


@pytest.mark.parametrize("name", ["kubernetes.yaml", "cloud_run.yaml"])
def test_arguments_are_the_commands(name):
    begin = re.search(r"^ENTRYPOINT (\[.*\])$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    first = yaml.safe_load(begin[1])
    assert first[0] == "siglip-jax"
    (arguments,) = inside(documents(name), "args")
    args = make_parser().parse_args([*first[1:], *arguments])
    assert (args.host, args.port) == ("0.0.0.0", 8000)
    grace = [int(each) for each in inside(documents(name), "terminationGracePeriodSeconds")]
    assert args.grace + 2 < (grace or [10.1])[0]  # or it is killed before it has answered
    assert 8000 in inside(documents(name), "containerPort")


def test_the_container_copies_what_the_package_is_made_of():
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
              for word in shlex.split(line)[:-1]]  # fmt: skip
    assert {"pyproject.toml", "README.md", "LICENSE", "siglip_jax", "converters"} == set(copied)
    assert all((REPO / name).exists() for name in copied)
