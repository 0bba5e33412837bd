"""The service of the bundled model, as tests ask it: small batches, and ready at once."""

import base64
import contextlib
import io
import time

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

import siglip_jax
from siglip_jax.serve import create_app

MODEL = "siglip_emoji"


def make_app(model=None, **options):
    """The application; `options` of `create_app`."""
    model = model or siglip_jax.load(MODEL)
    return create_app({"emoji": model}, batch_size=2, text_batch_size=4, workers=2, **options)


@contextlib.contextmanager
def served(app):
    """A client of an application that is ready."""
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(6000):
            if client.get("/health/ready").status_code == 200:
                break
            time.sleep(0.01)
        yield client


def png(side=64, seed=0):
    """A file of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def in_base64(data):
    return base64.b64encode(data).decode()


def uri(data, kind="image/png"):
    return f"data:{kind};base64,{in_base64(data)}"
