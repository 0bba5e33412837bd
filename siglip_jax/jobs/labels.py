"""Embeddings of a score job's labels, computed once, and the best labels of pictures."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from siglip_jax.activity import activity
from siglip_jax.jobs.bucket import Place, whole
from siglip_jax.jobs.durable import written
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.top_k import Chunk, TopK
from siglip_jax.messages import reason
from siglip_jax.programs.memory import device_memory
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.prompts import average, check_finite, expand
from siglip_jax.scoring.scores import sigmoid

CHUNK = 32768  # labels a file, and a step of the search
_PICTURES = 1024  # searched for at a time
_MEMORY = 2 * 2**30  # bytes of label embeddings a device keeps, where it does not say its size


class Labels:
    """The labels of a job, on the devices or, where they do not fit, streamed to them.

    Their embeddings lie in `labels/` of the job's folder, so that a million of them need not
    be computed again after an interruption.

    Args:
      memory: bytes of them that each device may keep; default: a quarter of its own.
    """

    def __init__(
        self, scorer: Scorer, job: Job, folder: Place, *, memory: int | None = None
    ) -> None:
        self.scorer, self.job = scorer, job
        self.names = np.array(job.labels, object)
        t, b = (float(np.asarray(scorer.params[name])[0]) for name in ("t", "b"))
        self._scale, self._bias = np.exp(np.float32(t)), np.float32(b)
        if job.top is None:
            self._all = scorer.embed_labels(job.labels, job.templates)
            return
        few = 1 << max(len(job.labels) - 1, 0).bit_length()
        # In the thread that waits for images, while another has the next computed.
        self._nearest = TopK(job.top, chunk=min(CHUNK, few), mesh=scorer.mesh, several_threads=True)
        files = self._embedded(folder / "labels")
        total = 4 * len(job.labels) * scorer.model.config.embed_dim
        if memory is None:
            whole = device_memory(jax.local_devices()).limit
            memory = _MEMORY if whole is None else whole // 4
        self.resident = total <= memory * scorer.mesh.size
        self._chunks: list[np.ndarray | Chunk] = [
            self._nearest.put(file) if self.resident else file for file in files
        ]

    def computed(self, zimg: np.ndarray) -> dict[str, np.ndarray]:
        """What a score job stores of images with embeddings (n, d)."""
        if self.job.top is None:
            logits = self.scorer.logits(zimg, self._all)
            return self._probabilities(logits, None)
        values = np.empty((len(zimg), self.job.top), np.float32)
        places = np.empty((len(zimg), self.job.top), np.int64)
        # A shard of few images must not cost a full block; powers of two bound what compiles.
        few = 1 << max(len(zimg) - 1, 0).bit_length()
        block = min(_PICTURES, few)
        for start in range(0, len(zimg), block):
            part = zimg[start : start + block]
            filled = np.zeros((block, zimg.shape[1]), np.float32)
            filled[: len(part)] = part
            near, found = self._nearest(filled, self._chunks)
            values[start : start + block] = near[: len(part)]
            places[start : start + block] = found[: len(part)]
        logits = values * self._scale + self._bias
        return {
            "labels": self.names[places],
            **self._probabilities(logits, places),
            "logits": logits,
        }

    def _probabilities(self, logits: np.ndarray, places: np.ndarray | None) -> dict[str, Any]:
        """Of all labels or of those at `places`; and which of them are accepted."""
        calibration, limits = self.job.calibration, self.job.threshold
        if calibration is None:
            p = sigmoid(logits)
        else:
            p = calibration.probabilities(logits, places)
            if limits is None and calibration.thresholds is not None:
                limits = calibration.thresholds
                limits = limits if places is None else limits[places]
        computed = {"probabilities": p.astype(np.float32)}
        if limits is not None:
            # In the order of the logits, as everywhere.
            order = np.argsort(-logits, axis=1, kind="stable")
            names = self.names[order if places is None else places]
            reached = np.take_along_axis(p >= limits, order, axis=1)
            accepted = np.empty(len(p), object)
            accepted[:] = [list(row[own]) for row, own in zip(names, reached, strict=True)]
            computed["accepted"] = accepted
        return computed

    def _embedded(self, folder: Place) -> list[np.ndarray]:
        folder.mkdir(exist_ok=True)
        files = []
        templates = len(self.job.templates)
        total = templates * len(self.names)
        with activity("embedding labels", total=total, unit="texts") as step:
            for start in range(0, len(self.names), CHUNK):
                path = folder / f"{start // CHUNK:05d}.npy"
                labels = self.job.labels[start : start + CHUNK]
                part = expand(labels, self.job.templates)
                if path.exists():
                    step.update(step.done + len(part), total)
                    step.rate.begin(step.done)
                else:
                    z = average(self.scorer.embed_texts(part, returned=step.advance), templates)
                    check_finite(z, labels)
                    with written(path) as file:
                        np.save(file, z)
                files.append(_mapped(path, len(labels)))
        return files


def _mapped(path: Place, count: int) -> np.ndarray:
    try:
        z = np.load(path, mmap_mode="r") if isinstance(path, Path) else np.load(whole(path))
    except (OSError, ValueError, EOFError) as error:
        said = reason(error)
    else:
        if z.ndim == 2 and len(z) == count:
            return z
        said = f"it has the shape {z.shape}"
    raise ValueError(
        f"{path}: not the embeddings of {count:,} labels ({said}); remove it, and the same command "
        "computes them again"
    )
