"""The model of shapes, and scenes that it has not seen, from recipes/shapes."""

import importlib.util
import sys

from paths import FIXTURES, REPO

MODEL = FIXTURES / "shapes"
RECIPE = REPO / "recipes" / "shapes"


def script(name):
    """A script of the recipe; they import each other as siblings, and emoji has some alike."""
    if name != "scenes":
        script("scenes")
    if f"shapes_{name}" not in sys.modules:
        spec = importlib.util.spec_from_file_location(f"shapes_{name}", RECIPE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"shapes_{name}"] = module
        if name == "scenes":
            sys.modules["scenes"] = module
        spec.loader.exec_module(module)
    return sys.modules[f"shapes_{name}"]


def held_out(count, seed=11):
    """Scenes of pairs that training never showed together."""
    scenes = script("scenes")
    return scenes.scenes(sorted(scenes.held_out_pairs()), count, seed)
