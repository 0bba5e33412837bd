"""The pictures of the bundled model, as requests send them."""

import base64
from pathlib import Path

PICTURES = sorted((Path(__file__).parents[2] / "siglip_jax/emoji/pictures").iterdir())


def as_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def as_uri(path: Path) -> str:
    return f"data:image/webp;base64,{as_base64(path)}"
