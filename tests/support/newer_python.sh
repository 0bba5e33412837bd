#!/usr/bin/env bash
# Prints the newest Python from 3.12 on that this machine has: on PATH, or of pyenv. jax 0.11 and
# later need one; on 3.11 pip installs 0.10.2. `make check PYTHON="$(tests/support/newer_python.sh)"`.
set -euo pipefail

for minor in 14 13 12; do
  for python in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python3."$minor"; do
    # pyenv puts names on PATH that do not run.
    if "$python" -c 'import ensurepip' 2>/dev/null; then
      command -v "$python"
      exit 0
    fi
  done
done
echo "no Python from 3.12 on, with venv, was found" >&2
exit 1
