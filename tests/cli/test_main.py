"""The command line as a whole: help, tables, what ends it early."""

import json
import re
import subprocess
import sys

import command_line
import pytest
from command_line import on_a_terminal, shell

import siglip_jax
from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.cli.main import COMMANDS
from siglip_jax.converters import convert
from siglip_jax.preprocessing import custom_profile

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
)
pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.mark.parametrize(
    ("argv", "heavy"),
    [
        (["--help"], "jax numpy rich huggingface_hub"),
        (["--version"], "jax numpy rich huggingface_hub"),
        (["list", "--help"], "jax numpy rich huggingface_hub"),
        (["show", "--help"], "jax numpy rich huggingface_hub"),
        (["score", "--help"], "jax numpy rich huggingface_hub"),
        (["embed", "--help"], "jax numpy rich huggingface_hub"),
        (["list"], "jax numpy rich"),
        (["list", "--json"], "jax numpy rich"),
        (["show", "siglip_b16_224", "--tree"], "jax"),
        (["show", "MODEL"], "jax"),
        (["score", "x.png", "--model", "siglip_b16_224", "--labels", ""], "jax numpy"),
    ],
)
def test_imports_nothing_heavy(model, argv, heavy):
    code = (
        "import sys\n"
        "from siglip_jax.cli.main import main\n"
        "try: main(sys.argv[2:])\n"
        "except SystemExit: pass\n"
        "assert not (found := set(sys.argv[1].split()) & set(sys.modules)), found\n"
    )
    shell("-c", code, heavy, *(model if a == "MODEL" else a for a in argv))


def test_help_names_every_command(cli):
    code, out, err = cli("--help")
    assert (code, err) == (0, [])
    assert all(f"\n    {command.NAME} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", [command.NAME for command in COMMANDS])
@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_names_every_option(cli, command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, [])
    said, options = out.split(
        "\npositional arguments:\n" if "\npositional" in out else "\noptions:\n"
    )
    assert max(map(len, said.splitlines())) <= 88
    assert columns == "200" or max(map(len, options.splitlines())) <= 80
    assert out.startswith(f"usage: siglip-jax {command} ")
    # Every option says what it does.
    assert not re.findall(r"^  --\S+( [A-Z.\[\] ]+)?$\n(?! {20})", out, re.M), out


def test_list(cli):
    code, out, err = cli("list")
    head, *rows = out.splitlines()
    assert (code, err) == (0, [])
    assert head.split() == ["NAME", "PARAMETERS", "INPUT", "TEXT", "IMAGENET", "OTHER", "NAMES"]
    assert len(rows) == 27
    for row, checkpoint in zip(rows, CHECKPOINTS, strict=True):
        assert row.startswith(f"{checkpoint.name} ")
        assert f" {checkpoint.params:,} " in row
        assert row.endswith(f"  {', '.join(checkpoint.aliases)}")


def test_list_json(cli):
    code, out, err = cli("list", "--json")
    rows = json.loads(out)
    assert (code, err, len(rows)) == (0, [], 27)
    for row, checkpoint in zip(rows, CHECKPOINTS, strict=True):
        assert (row["name"], row["parameters"]) == (checkpoint.name, checkpoint.params)
        assert row["aliases"] == list(checkpoint.aliases)
        assert row["text_length"] == checkpoint.config.text.length
    assert rows[0]["parameters"] == 203_155_970
    assert rows[0]["accuracy"]["imagenet"] == 76.2


def test_show_a_name(cli):
    code, out, err = cli("show", "ViT-SO400M-14-SigLIP-384")
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
    assert (code, err) == (0, [])
    assert facts["name"] == "siglip_so400m14_384" and facts["parameters"] == "877,960,498"
    assert facts["grid"] == "27" and facts["text length"] == "64"
    assert "ViT-SO400M-14-SigLIP-378" in facts["aliases"]


def test_show_a_file(cli, model, tmp_path):
    for path in (model, f"{model}/weights.safetensors"):
        code, out, err = cli("show", path, "--json")
        facts = json.loads(out)
        assert (code, err) == (0, [])
        assert facts["path"] == f"{model}/weights.safetensors" and facts["dtypes"] == "float32"
    # The card beside the weights knows the resolution, a bare file of big_vision does not.
    assert facts["res"] == 32
    convert(model, tmp_path / "bare.npz", to="npz")
    bare = json.loads(cli("show", tmp_path / "bare.npz", "--json")[1])
    assert bare["res"] == "not stated: 32 to 39" and bare["patch"] == 8
    params = siglip_jax.load(model).params
    total = sum(leaf.size for leaf in _leaves(params))
    assert (facts["parameters"], facts["bytes"]) == (total, 4 * total)


def test_show_what_does_not_say_all_of_itself(cli, model, tmp_path):
    convert(model, tmp_path / "bare.npz", to="npz")
    assert json.loads(cli("show", "bare.npz", "--res", 35, "--json")[1])["res"] == 35
    convert(model, tmp_path / "hf", to="transformers")
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert "give --architecture of one like it" in cli("show", "alone.safetensors")[2][0]
    code, out, err = cli("show", "alone.safetensors", "--architecture", model, "--json")
    assert (code, err, json.loads(out)["res"]) == (0, [], 32)


def test_a_folder_of_the_hubs_cache(cli, model, tmp_path):
    snapshot = tmp_path / "models--me--mine" / "snapshots" / "01ab"
    for folder in (snapshot.parent, tmp_path / "models--me--mine" / "refs"):
        folder.mkdir(parents=True)
    convert(model, snapshot, to="transformers")
    (tmp_path / "models--me--mine" / "refs" / "main").write_text("01ab")
    code, out, err = cli("show", "models--me--mine", "--json")
    assert (code, err) == (0, [])
    assert json.loads(out)["format"] == "transformers"
    config = siglip_jax.load(model).config
    profile = custom_profile(config, 1, "transformers")
    assert siglip_jax.load("models--me--mine", profile=profile).config == config


def _leaves(tree):
    return [x for v in tree.values() for x in (_leaves(v) if isinstance(v, dict) else [v])]


def test_show_tree(cli, model):
    _, out, _ = cli("show", "siglip2_b16_naflex", "--tree")
    assert re.search(r"^img/pos_embedding +\(16, 16, 768\)$", out, re.M)
    _, out, _ = cli("show", model, "--tree")
    assert re.search(r"^txt/Embed_0/embedding +\(320, \d+\) float32$", out, re.M)
    _, out, _ = cli("show", "siglip_b16_224", "--tree", "--json")
    assert json.loads(out)["tree"]["t"] == "(1,)"


def test_an_interrupt_is_one_line(cli, model, pictures, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("siglip_jax.scoring.Scorer.embed_items", interrupt)
    assert cli("score", pictures, "--model", model, "--labels", "cat") == (
        130,
        "",
        ["siglip-jax: error: interrupted"],
    )


def test_our_own_errors_keep_their_traceback(cli, monkeypatch):
    def fails(args):
        raise RuntimeError("a bug")

    monkeypatch.setattr("siglip_jax.cli.commands.list.run", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        cli("list")


def test_debug_shows_the_traceback():
    done = shell("-m", "siglip_jax.cli.main", "show", "siglip_b16_225", "--debug", code=1)
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "did you mean" in done.stderr.splitlines()[-1]


# More than Python buffers, and less: that is only written at the very end.
@pytest.mark.parametrize(
    "argv",
    [
        ["show", "siglip2_g-opt16_256", "--tree"],
        ["show", "siglip_b16_224"],
        ["list"],
        ["list", "--json"],
        ["demo"],
        ["demo", "--json"],
        ["score", "--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_a_reader_that_goes_away_is_no_error(argv, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with subprocess.Popen(
        [sys.executable, "-m", "siglip_jax.cli.main", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_names_of_files_do_not_command_a_terminal(monkeypatch, cli, model, pictures):
    (pictures / "a.PNG").rename(pictures / "\x1b]0;owned\x07.png")
    (pictures / "\x1b[2Jbad.png").write_text("none")
    argv = ("score", "pictures", "--model", model, "--labels", "\x1b[1mb", "--json")
    code, out, err = cli(*argv)
    assert code == 2 and "\x1b" not in out
    assert all(line.isprintable() for line in err) and "\\x1b[2Jbad.png" in err[0]
    _, shown = on_a_terminal(monkeypatch, *argv[:-1])
    assert "\\x1b]0;owned\\x07.png" in shown and "\x1b" not in shown and "\x07" not in shown
    code, out, err = cli("show", "no\x1b[2J.npz")
    assert code == 2 and err[0].isprintable()
