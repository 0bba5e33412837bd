"""A package that is not installed is one line, with what to type."""

import command_line
import pytest
from command_line import shell

model, pictures, surroundings = (
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
)
pytestmark = pytest.mark.usefixtures("surroundings")

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from siglip_jax.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
RECIPE = """
steps = 1
batch = 8
data = { train = "pictures/pairs.csv" }
init = { model = "siglip_emoji" }
"""


@pytest.mark.parametrize(
    ("package", "argv", "install"),
    [
        ("pyarrow", "embed pictures --model MODEL --out index", '"pyarrow>=16"'),
        ("pyarrow", "score pictures --model MODEL --out o --labels a b", '"pyarrow>=16"'),
        ("fsspec", "embed s3://b/x.tar --model MODEL --out index", '"fsspec[http]>=2024.6"'),
        ("grain", "train recipe.toml --out run", '"grain<0.3,>=0.2.10"'),
        ("optax", "train recipe.toml --out run", '"optax<0.3,>=0.2.3"'),
        ("optax", "plan --train recipe.toml --on local", '"optax<0.3,>=0.2.3"'),
        ("flatbuffers", "plan MODEL --on local --no-search --save p.zip", '"flatbuffers>=24"'),
        ("tokenizers", "convert MODEL out --to transformers", '"tokenizers<1,>=0.21"'),
    ],
)
def test_what_to_install(model, pictures, tmp_path, package, argv, install):
    (pictures / "pairs.csv").write_text("image,caption\n" + "a.PNG,a dog\n" * 8)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = [model if word == "MODEL" else word for word in argv.split()]
    done = shell("-c", WITHOUT, package, *words, code=2, cwd=tmp_path)
    (line,) = [line for line in done.stderr.splitlines() if "warning" not in line]
    assert line.startswith(f"siglip-jax: error: {package} is not installed")
    assert line.endswith(f"pip install {install}")
