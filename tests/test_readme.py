"""The README: its table is the code's, its commands exist, its quick start runs."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image
from readme_table import README, with_table
from saved_model import saved

import siglip_jax
from siglip_jax.cli.main import make_parser

TEXT = README.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_table_is_generated():
    assert with_table(TEXT) == TEXT, "run `make readme`"
    assert len(re.findall(r"^\| `siglip", TEXT, flags=re.MULTILINE)) == 27


def command_lines() -> list[str]:
    joined = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("siglip-jax ")]


@pytest.mark.parametrize("line", command_lines())
def test_commands_parse(line):
    args = make_parser().parse_args(shlex.split(line.partition(" #")[0].partition(" |")[0])[1:])
    assert callable(args.run)


def test_make_targets_exist():
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)", "\n".join(blocks("sh"))):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


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
    (code,) = [block for block in blocks("python") if "siglip_jax.load(" in block][:1]
    scope: dict = {}
    exec(code, scope)
    assert asked == ["ViT-B-16-SigLIP"]
    assert scope["scores"].labels == ("a dog", "a cat", "a donut", "a beignet")
    assert np.isfinite(scope["scores"].probabilities).all()
    assert "a donut" in capsys.readouterr().out


def test_the_recipe_is_one():
    import tomllib

    from siglip_jax.training import recipe_from_dict

    (text,) = blocks("toml")
    recipe = recipe_from_dict(tomllib.loads(text))
    assert recipe.parameters[0].frozen and recipe.optimizer.lr == 1e-4
