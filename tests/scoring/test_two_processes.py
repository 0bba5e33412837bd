"""Two processes on this machine (`jax.distributed`) score as one does."""

import os
import socket
import subprocess
import sys

import numpy as np
from paths import SUPPORT
from tolerances import EMBEDDING
from towers import case

from siglip_jax.models import SiglipModel
from siglip_jax.scoring import Scorer

WORKER = SUPPORT / "two_process_worker.py"


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(SUPPORT),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, f"127.0.0.1:{port}", str(rank), str(tmp_path)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    logs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)

    tiny = case("loop")
    scorer = Scorer(SiglipModel(tiny.config, tiny.execution), tiny.params, batch_size=8)
    images = np.concatenate([np.asarray(tiny.images)] * 3)
    zimg, ztxt = scorer.embed_images(images), scorer.embed_texts(np.asarray(tiny.texts))
    for rank in range(2):
        for rules in ("replicated", "fsdp"):
            with np.load(tmp_path / f"{rank}.{rules}.npz") as got:
                assert got["devices"] == 4 and got["local"] == 2
                np.testing.assert_allclose(got["zimg"], zimg, rtol=0, atol=EMBEDDING)
                np.testing.assert_allclose(got["ztxt"], ztxt, rtol=0, atol=EMBEDDING)
                np.testing.assert_allclose(
                    got["logits"], scorer.logits(zimg, ztxt), rtol=1e-6, atol=1e-6
                )
