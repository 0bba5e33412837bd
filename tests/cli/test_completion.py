"""`siglip-jax --print-completion`: scripts that a shell takes."""

import shutil
import subprocess
import sys

import command_line
import pytest

surroundings = command_line.surroundings
pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def script(cli, tmp_path):
    pytest.importorskip("shtab", reason="completion needs: pip install shtab")

    def script(name):
        code, out, err = cli("--print-completion", name)
        assert (code, err) == (0, [])
        path = tmp_path / f"completion.{name}"
        path.write_text(out)
        return path

    return script


def completed(path, *words):
    """What bash offers for the last of `words`."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {path}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        "f=$(complete -p siglip-jax | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        f"$f siglip-jax '{words[-1]}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=path.parent)
    return done.stdout.split()


def test_bash_completes_commands_options_models_and_files(script):
    path = script("bash")
    (path.parent / "photos").mkdir()
    assert completed(path, "siglip-jax", "sc") == ["score"]
    assert completed(path, "siglip-jax", "score", "--lab") == ["--labels", "--labels-file"]
    assert "siglip_b16_224" in completed(path, "siglip-jax", "score", "--model", "siglip_b16")
    assert completed(path, "siglip-jax", "embed", "pho") == ["photos"]
    assert completed(path, "siglip-jax", "list", "--family", "siglip2") == ["siglip2"]
    # A former spelling works, and is not offered.
    assert completed(path, "siglip-jax", "embed", "--error-sh") == []


def test_zsh_takes_its_script(script):
    path = script("zsh")
    assert path.read_text().startswith("#compdef siglip-jax")
    if zsh := shutil.which("zsh"):
        subprocess.run([zsh, "-n", path], check=True)


def test_other_shells_and_a_missing_package(cli, monkeypatch):
    code, _, err = cli("--print-completion", "fish")
    assert code == 2 and "invalid choice" in err[-1]
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, out, err = cli("--print-completion", "bash")
    assert (code, out) == (2, "")
    (line,) = err
    assert line.startswith("siglip-jax: error: shtab is not installed, and completion needs it; ")
