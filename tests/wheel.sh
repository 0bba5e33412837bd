#!/usr/bin/env bash
# Builds the wheel, installs it into a folder of its own, and uses it from a
# temporary directory: what is missing from the package list shows here.
set -euo pipefail
python=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
# A copy, so that building leaves nothing behind in the checkout.
(cd "$root" && git ls-files -z --cached --others --exclude-standard \
    pyproject.toml README.md LICENSE siglip_jax converters | xargs -0 -r cp --parents -t "$scratch")
"$python" -m pip wheel --quiet --no-deps --wheel-dir dist .
"$python" -m pip install --quiet --no-deps --target installed dist/*.whl
mkdir elsewhere && cd elsewhere
export PYTHONPATH="$scratch/installed"
"$python" - "$scratch/installed" <<'PY'
import pathlib, pkgutil, sys
import siglip_jax, siglip_jax.converters
installed = pathlib.Path(sys.argv[1])
assert installed in pathlib.Path(siglip_jax.__file__).parents, siglip_jax.__file__
names = [m.name for m in pkgutil.walk_packages(siglip_jax.__path__, "siglip_jax.")]
for name in names:
    __import__(name)
tops = {p.name for p in installed.iterdir() if p.suffix != ".dist-info" and p.name != "bin"}
assert tops == {"siglip_jax"}, f"the wheel installs {tops}"
print(f"wheel: {len(names)} modules import from {installed.name}/")
PY
"$python" -m siglip_jax.cli.main list --json > list.json
"$python" -c "import json; assert len(json.load(open('list.json'))) == 27"
echo "wheel: siglip-jax list works outside the checkout"
