"""`python -m siglip_jax`: the command."""

import sys

from siglip_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
