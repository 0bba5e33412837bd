"""open_clip's training step as a contestant: its model, its sigmoid loss, a fused AdamW."""

import time
from typing import Any

import numpy as np
import torch
from sizes import Case, config_for
from theirs import DEVICE, Theirs, batch_of, open_clip_model, synchronize


class TheirTraining(Theirs):
    """open_clip's model and sigmoid loss, autocast to bfloat16, with a fused AdamW."""

    def __init__(self, case: Case) -> None:
        import open_clip

        self.config, self.ready = config_for(case), {}
        self.model = open_clip_model(self.config, torch.float32).train()
        self.loss = open_clip.loss.SigLipLoss()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-5, betas=(0.9, 0.95), fused=DEVICE == "cuda"
        )
        self.compiled = torch.compile(self.value, dynamic=False)
        self.first: np.ndarray | None = None

    def value(self, images: Any, texts: Any) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16):
            zimg, ztxt, scale, bias = self.model(images, texts)
            return self.loss(zimg, ztxt, scale, bias)

    def prepare(self, batch: int) -> dict[str, Any]:
        given = [
            batch_of("open_clip", self.config, tower, batch, torch.float32)
            for tower in ("images", "texts")
        ]
        self.ready[batch] = None, given
        start = time.perf_counter()
        self.run(batch, 2)
        seconds = time.perf_counter() - start
        self.release()
        return {"compile_seconds": seconds, "temporary": None}

    def run(self, batch: int, count: int) -> None:
        for _ in range(count):
            self.embed_step(batch)
        synchronize()

    def embed_step(self, batch: int) -> torch.Tensor:
        _, given = self.ready[batch]
        loss = self.compiled(*given)
        if self.first is None:
            self.first = loss.detach().float().cpu().numpy()[None]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def embed(self, batch: int) -> np.ndarray:
        """The loss before the first step: compiling has trained since."""
        return self.first
