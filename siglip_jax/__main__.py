"""`python -m siglip_jax`: the command."""

from siglip_jax.cli.main import run

if __name__ == "__main__":
    run()
