"""Recipes: what a file may say, and one clear line for what it may not."""

import pytest
import shapes
from paths import REPO

from siglip_jax.checkpoints import find
from siglip_jax.config import Execution, NaFlexVision
from siglip_jax.training import read_recipe, recipe_from_dict
from siglip_jax.training.recipe_tables import RecipeError

RECIPES = sorted((REPO / "recipes").glob("**/*.toml"))
SIZE = {"width": 8, "depth": 1, "mlp_dim": 16, "num_heads": 2}
PLAIN = {
    "steps": 10,
    "batch": 8,
    "data": {"train": "x"},
    "model": {
        "image": SIZE | {"patch": 8, "res": 16},
        "text": SIZE | {"vocab_size": 9, "length": 4},
        "vocabulary": "y",
    },
}


def changed(path, value):
    """`PLAIN` with one value set; None takes it out."""
    *tables, last = path.split(".")
    whole = here = {k: dict(v) if isinstance(v, dict) else v for k, v in PLAIN.items()}
    for name in tables:
        here[name] = dict(here.get(name, {}))
        here = here[name]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return whole


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_committed_recipes_are_recipes(file):
    recipe = read_recipe(file)
    assert recipe.init.model or (recipe.config and recipe.profile)


def test_toml_and_tables_say_the_same(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(shapes.toml(PLAIN))
    recipe = read_recipe(file)
    assert recipe == recipe_from_dict(PLAIN)
    assert recipe.config.vision.size.width == recipe.config.text.head == 8
    assert recipe.config.text.vocab_size == 9
    assert recipe.profile.name == "big_vision"
    # What a run's folder remembers makes the same recipe again, without what is not set.
    assert recipe_from_dict(without_none(recipe.to_dict())) == recipe


def without_none(table):
    return {
        k: without_none(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None
    }


def test_every_table_is_read():
    recipe = recipe_from_dict(
        PLAIN
        | {
            "augmentation": {"rotate": 10, "background": "random"},
            "preprocessing": {"background": [0, 0, 255], "lower": "unicode"},
            "parameters": [{"pattern": "img/.*", "frozen": True}, {"pattern": "t", "lr": 2}],
            "execution": {"dtype": "bfloat16", "scan_image": True},
            "devices": {"weights": "fsdp"},
            "evaluate": {"data": "z", "every": 3},
            "save": {"keep": 1},
            "loss": {"name": "softmax"},
        }
    )
    assert recipe.augmentation.rotate == 10.0 and isinstance(recipe.parameters[1].lr, float)
    assert recipe.profile.image.background == (0, 0, 255)
    assert recipe.profile.text.lower == "unicode" and recipe.profile.name == "custom"
    assert recipe.execution == Execution(dtype="bfloat16", scan_image=True)
    assert (recipe.evaluate.every, recipe.save.every, recipe.save.keep) == (3, 1000, 1)


def test_a_released_architecture_brings_its_vocabulary():
    recipe = recipe_from_dict(PLAIN | {"model": {"like": "siglip2_b16_224"}})
    assert recipe.config == find("siglip2_b16_224").config
    assert recipe.profile.text.vocabulary == "gemma"
    naflex = PLAIN["model"] | {"image": SIZE | {"patch": 8, "posemb_grid": 4}}
    vision = recipe_from_dict(PLAIN | {"model": naflex}).config.vision
    assert isinstance(vision, NaFlexVision) and vision.posemb_grid == 4


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # Unknown keys, near names at every level.
        ("optimiser", {}, "optimiser is unknown; did you mean optimizer?"),
        ("optimizer.wamup", 3, "optimizer.wamup is unknown; did you mean warmup?"),
        ("model.image.widht", 3, "model.image.widht is unknown; did you mean width?"),
        ("parameters", [{"patern": "x"}], "parameters[0].patern is unknown; did you mean pattern?"),
        ("save.zzz", 3, "save.zzz is unknown; there are every, keep"),
        # Missing ones.
        ("steps", None, "steps is missing"),
        ("data.train", None, "data.train is missing"),
        ("model.text.length", None, "model.text.length is missing"),
        ("parameters", [{}], "parameters[0].pattern is missing"),
        # Types.
        ("steps", "ten", "steps must be a whole number, got 'ten'"),
        ("steps", 10.0, "steps must be a whole number, got 10.0"),
        ("steps", True, "steps must be a whole number, got True"),
        ("optimizer.lr", "1e-3", "optimizer.lr must be a number, got '1e-3'"),
        ("optimizer.lr", False, "optimizer.lr must be a number, got False"),
        ("data.train", ["x"], "data.train must be a string, got ['x']"),
        ("data.cache_images", 1, "data.cache_images must be true or false, got 1"),
        ("data", "x", "[data] must be a table, got 'x'"),
        ("parameters", {"pattern": "x"}, "parameters must be a list, got {'pattern': 'x'}"),
        ("parameters", ["x"], "[parameters[0]] must be a table, got 'x'"),
        ("preprocessing.background", [0, "x", 0], "preprocessing.background[1] must be a whole"),
        ("optimizer.name", "adam", "must be one of adamw, adafactor, lion, got 'adam'; did you"),
        (
            "devices.weights",
            "fdsp",
            "of replicate, fsdp, got 'fdsp'; did you mean fsdp?",
        ),
        # Values that say nothing sensible.
        ("steps", 0, "steps must be at least 1, got 0"),
        ("accumulate", -1, "accumulate must be at least 1, got -1"),
        ("accumulate", 3, "accumulate=3 does not divide batch=8"),
        ("save.every", 0, "save.every must be at least 1, got 0"),
        ("save.keep", 0, "save.keep must be at least 1, got 0"),
        ("evaluate", {"data": "x", "every": 0}, "evaluate.every must be at least 1, got 0"),
        ("data.max_error_share", 1.5, "data.max_error_share is a share below 1, got 1.5"),
        ("optimizer.warmup", 10, "optimizer.warmup=10 is not below steps=10"),
        ("augmentation.rotate", -1, "[augmentation]: "),
        ("model.image.num_heads", 3, "width 8 is not a multiple of num_heads 3"),
        ("parameters", [{"pattern": "img/("}], "'img/(' is no regular expression"),
        # Contradictions.
        ("model", None, "neither a [model] nor init.model"),
        ("init.model", "x", "init.model brings its own architecture"),
        ("model.like", "siglip_b16_224", "either like or both of image and text"),
        ("model.text", None, "takes both of image and text"),
        ("model.image.res", None, "[model.image] needs res, or posemb_grid"),
        ("loss", {"name": "softmax", "chunk": 4}, "the softmax loss has no chunks"),
    ],
)
def test_what_a_recipe_may_not_say(path, value, message):
    with pytest.raises(ValueError) as caught:
        recipe = recipe_from_dict(changed(path, value))
        _ = recipe.config  # sizes are checked when the architecture is made
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("data.image", "data.image_column", "photo"),
        ("data.caption", "data.text_column", "title"),
        ("data.max_unreadable", "data.max_error_share", 0.5),
        ("evaluate.caption", "evaluate.text_column", "title"),
    ],
)
def test_keys_under_the_names_that_they_had(old, new, value):
    table = changed("evaluate", {"data": "x"})
    where, _, key = old.partition(".")
    table[where] = table[where] | {key: value}
    with pytest.warns(UserWarning, match=f"^{old} is called {new} now$"):
        recipe = recipe_from_dict(table)
    assert getattr(getattr(recipe, where), new.partition(".")[2]) == value
    table[where] |= {new.partition(".")[2]: value}
    with pytest.raises(ValueError, match=f"^{old} is called {new} now, which is given too$"):
        recipe_from_dict(table)


def test_two_that_exclude_each_other():
    table = PLAIN | {"augmentation": {}, "data": {"train": "x", "cache_images": True}}
    with pytest.raises(RecipeError, match=r"leave out \[augmentation\]"):
        recipe_from_dict(table)
    both = {"model": "a", "text": "b"}
    table = {k: v for k, v in PLAIN.items() if k != "model"}
    with pytest.raises(RecipeError, match=r"leave out init.image and init.text"):
        recipe_from_dict(table | {"init": both})
    with pytest.raises(RecipeError, match=r"leave out \[preprocessing\]"):
        recipe_from_dict(table | {"init": {"model": "a"}, "preprocessing": {}})


def test_changes_from_the_command_line(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(shapes.toml(PLAIN))
    recipe = read_recipe(
        file,
        [
            "optimizer.lr=1e-4",
            "optimizer.name=lion",  # a bare word is a string
            'data.train="a=b"',
            "evaluate.data=z",
            "preprocessing.background=[1, 2, 3]",
            "steps = 7",
        ],
    )
    assert (recipe.optimizer.lr, recipe.optimizer.name) == (1e-4, "lion")
    assert (recipe.data.train, recipe.evaluate.data, recipe.steps) == ("a=b", "z", 7)
    assert recipe.preprocessing.background == (1, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lr", "expected key=value, such as optimizer.lr=1e-4, got 'optimizer.lr'"),
        ("optimizer.lrr=1", "optimizer.lrr is unknown; did you mean lr?"),
        ("optimizer.lr=fast", "optimizer.lr must be a number, got 'fast'"),
        ("steps.x=1", "steps.x=1: steps is not a table"),
    ],
)
def test_changes_that_cannot_be(tmp_path, change, message):
    file = tmp_path / "a.toml"
    file.write_text(shapes.toml(PLAIN))
    with pytest.raises(ValueError) as caught:
        read_recipe(file, [change])
    assert str(caught.value) == f"{file}: {message}"


def test_files_that_are_no_recipes(tmp_path):
    file = tmp_path / "a.toml"
    with pytest.raises(ValueError, match=r"a.toml: the recipe cannot be read: No such file"):
        read_recipe(file)
    with pytest.raises(ValueError, match=r"the recipe cannot be read: Is a directory"):
        read_recipe(tmp_path)
    file.write_text("steps: 3")
    with pytest.raises(ValueError, match=r"a.toml: not a TOML file: "):
        read_recipe(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a.toml: the recipe cannot be read: not UTF-8 text"):
        read_recipe(file)
