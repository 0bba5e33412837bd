"""Advice names options that the very command has."""

import re

import pytest

from siglip_jax.cli.advice import out_of_memory, spoken
from siglip_jax.cli.main import COMMANDS, make_parser
from siglip_jax.errors import ModelError

NEEDS = ModelError.__init__.__globals__["Need"].__args__


def options(command):
    parser = make_parser()
    return parser._subparsers._group_actions[0].choices[command]._option_string_actions


@pytest.mark.parametrize("command", [command.NAME for command in COMMANDS])
def test_out_of_memory(command):
    there = options(command)
    line = out_of_memory(frozenset(there))
    named = re.findall(r"--[a-z-]+", line)
    assert set(named) <= there.keys()
    # Whatever the command has to make less of it is said.
    assert ("--batch-size" in named) == ("--batch-size" in there)
    assert ("--fsdp" in named) == ("--fsdp" in there)
    assert command != "train" or named == ["--set"]


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        (command.NAME, need)
        for command in COMMANDS
        for need in sorted(set(NEEDS) - {"force", "loop", "classifier"})
        # What is said of a base that is none's is for commands that take one.
        if need != "adapter" or "--base" in options(command.NAME)
    ],
)
def test_what_a_model_needs(command, needs):
    there = options(command)
    error = ModelError("x", needs=needs, advice="", path="p", res=32)
    own, _, other = spoken(error, frozenset(there)).partition("siglip-jax convert")
    assert set(re.findall(r"--[a-z-]+", own)) <= there.keys()
    assert set(re.findall(r"--[a-z-]+", other)) <= options("convert").keys()


def test_a_command_says_it(cli, monkeypatch):
    def fails(args):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    for command in ("show", "train"):
        monkeypatch.setattr(f"siglip_jax.cli.commands.{command}.run", fails)
    assert cli("show", "x")[::2] == (
        2,
        [
            "siglip-jax: error: out of memory; close what else runs on this machine, or take one "
            "with more"
        ],
    )
    line = cli("train", "x.toml", "--out", "o")[2][0]
    assert line.endswith("out of memory; try --set accumulate=2 (or more), or a smaller batch")
