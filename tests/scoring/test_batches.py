"""How many processes decode for a job, where no one said."""

from types import SimpleNamespace

import pytest

from siglip_jax.scoring import batches


@pytest.mark.parametrize(
    ("platform", "cores", "images", "expected"),
    [
        ("gpu", 16, 10**6, 16),
        ("gpu", 16, None, 16),
        ("tpu", 112, None, 16),
        ("gpu", 8, 2048, 8),
        ("gpu", 7, None, 0),
        ("gpu", 16, 2047, 0),
        ("cpu", 16, None, 0),
    ],
)
def test_processes_that_decode(monkeypatch, platform, cores, images, expected):
    monkeypatch.setattr(batches, "cores_of_this_process", lambda: cores)
    devices = [SimpleNamespace(platform=platform)]
    assert batches.usual_decode_processes(devices, images) == expected
