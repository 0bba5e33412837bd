"""`siglip-jax list`: a line each, and filters as of `timm.list_models`."""

import json
import re

import command_line
import pytest
from command_line import on_a_terminal

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.fine_tunes import FINE_TUNES

pytestmark = pytest.mark.usefixtures("surroundings")
surroundings = command_line.surroundings


def names(cli, *argv):
    code, out, err = cli("list", *argv, "--json")
    assert (code, err) == (0, [])
    return [row["name"] for row in json.loads(out)]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("more", [(), ("--fine-tunes",)])
def test_a_line_each_that_fits_the_terminal(monkeypatch, columns, more):
    code, shown = on_a_terminal(monkeypatch, "list", *more, columns=columns)
    lines = shown.splitlines()
    assert code == 0 and max(map(len, lines)) <= columns
    if more:
        assert len(lines) == 1 + 2 * len(FINE_TUNES) + 1
    else:
        assert len(lines) == 1 + 27 + 3
        assert [line.split()[0] for line in lines[1:28]] == [c.name for c in CHECKPOINTS]


@pytest.mark.parametrize("columns", [80, 120])
def test_all_names_fit_the_terminal(monkeypatch, columns):
    code, shown = on_a_terminal(monkeypatch, "list", "--names", columns=columns)
    lines = shown.splitlines()
    assert code == 0 and max(map(len, lines)) <= columns
    there = re.sub(r"\s+", " ", "".join(f"{line} " for line in lines if line.startswith("  ")))
    assert all(alias in there for c in CHECKPOINTS for alias in c.aliases)


def test_filters(cli):
    assert names(cli, "so400m", "--res", "384") == [
        "siglip_so400m14_384",
        "siglip2_so400m14_384",
        "siglip2_so400m16_384",
    ]
    assert names(cli, "*so400m*", "--family", "siglip", "--res", "384") == ["siglip_so400m14_384"]
    # By any of its names, in either case; all words must be there.
    assert (
        names(cli, "ViT-L-16-SigLIP-384") == names(cli, "VIT_large*384.webli") == ["siglip_l16_384"]
    )
    assert names(cli, "google", "naflex") == ["siglip2_b16_naflex", "siglip2_so400m16_naflex"]
    assert len(names(cli, "*siglip*")) == len(names(cli)) == 27
    assert len(names(cli, "--family", "siglip2")) == 17
    assert names(cli, "--fine-tunes", "fashion") == ["marqo_fashion_siglip"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ("siglip_b16_225",),
            "nothing in the list is 'siglip_b16_225'; did you mean siglip_b16_224",
        ),
        (("zebra", "--family", "siglip"), "'zebra' and of --family siglip; siglip-jax list shows"),
        (("--res", "225"), "of --res 225; there are 224, 256, 384, 512 px"),
    ],
)
def test_nothing_is_found(cli, argv, said):
    code, out, err = cli("list", *argv)
    assert (code, out, len(err)) == (2, "", 1) and said in err[0]
