"""What has to travel to a machine without a network: this checkout and a few wheels.

    python benchmarks/gpu/carry.py [--check]

Downloads into gpu-wheels/ what such a machine is likely to lack (`--check` downloads nothing),
adds up the bytes of the checkout and of the wheels, exits with 1 if they are more than 64 MB, and
prints the command to run there. The machine brings Python 3.12 and jax for its accelerator,
flax, optax, orbax, tensorstore, pyarrow, pytest and, to compare with, torch, timm and transformers.
"""

import argparse
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
WHEELS = REPO / "gpu-wheels"
LIMIT, WHEEL_LIMIT = 64e6, 60e6
# Each without its own dependencies, which are here too or come with the above.
PACKAGES = (
    "simplejpeg>=1.8,<2",
    "grain>=0.2.10,<0.3",
    "array_record>=0.8.1",
    "open_clip_torch>=3.3,<4",
    "ftfy>=6",
    "portpicker",  # of grain
    "wcwidth",  # of ftfy
    "beartype>=0.19,<0.30",
    "pytest-xdist>=3",
    "execnet",  # of pytest-xdist
)
PLATFORMS = ("2_17", "2_24", "2_27", "2_28", "2_31", "2_34", "2_35")
COMMAND = """\
python3 -m pip install -q --no-index --no-deps --no-compile --find-links gpu-wheels \\
  --upgrade --target gpu-wheels/site gpu-wheels/*.whl &&
PYTHONPATH="$PWD/gpu-wheels/site" python3 benchmarks/gpu "$OUT"
"""


def download() -> None:
    WHEELS.mkdir(exist_ok=True)
    for old in WHEELS.glob("*.whl"):
        old.unlink()
    platforms = [f"--platform=manylinux_{each}_x86_64" for each in PLATFORMS]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary=:all:", "--python-version=3.12", "--implementation=cp"),
            *platforms,
            "--platform=manylinux2014_x86_64",
            f"--dest={WHEELS}",
            *PACKAGES,
        ],
        check=True,
    )


def code_bytes() -> int:
    """What git tracks or would add, as it lies on the disk."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    files = {REPO / name for name in listed.stdout.split("\0") if name}
    return sum(file.stat().st_size for file in files if file.is_file())


def wheel_bytes() -> int:
    return sum(file.stat().st_size for file in WHEELS.glob("*.whl"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="download nothing")
    if not parser.parse_args().check:
        download()
    code, wheels = code_bytes(), wheel_bytes()
    names = ", ".join(sorted(file.name.split("-")[0] for file in WHEELS.glob("*.whl")))
    print(f"code {code / 1e6:.1f} MB, wheels {wheels / 1e6:.1f} MB ({names or 'none'})")
    print(f"together {(code + wheels) / 1e6:.1f} of {LIMIT / 1e6:.0f} MB")
    if wheels > WHEEL_LIMIT or code + wheels > LIMIT:
        print("this is too much to carry")
        return 1
    print(f"there, in the checkout, with OUT as the folder for the results:\n\n{COMMAND}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
