"""What every process of a job is told, and the worker that it makes of that and a model."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax

from siglip_jax.data import ErrorShare, Source
from siglip_jax.jobs.bucket import Place
from siglip_jax.jobs.claims import Turns
from siglip_jax.jobs.classes import Classes
from siglip_jax.jobs.job import Job
from siglip_jax.jobs.labels import Labels
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.manifest import Manifest
from siglip_jax.jobs.options import Options
from siglip_jax.jobs.sink import make_sink
from siglip_jax.jobs.worker import Worker
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring import Scorer
from siglip_jax.scoring.batches import usual_batch_size, usual_decode_processes


class Work(NamedTuple):
    """A job, what it reads and where it writes; can be pickled if its options can.

    Attributes:
      folder: of the output.
    """

    job: Job
    source: Source
    folder: Place
    options: Options

    def worker(
        self,
        model: Pretrained,
        manifest: Manifest,
        *,
        ledger: Ledger,
        turns: Turns,
        stop: Callable[[], bool],
        errors: ErrorShare,
        kind: type[Worker] = Worker,
    ) -> Worker:
        """A worker of this process, which is to run on its devices.

        Args:
          manifest: of the folder, which has it by now.
          turns: which shards it does.
          kind: of a worker.

        Raises:
          ValueError: if the options do not go with the model, or labels cannot be embedded.
        """
        scorer = self._scorer(model)
        return kind(
            self.source,
            scorer,
            what=self.job.what,
            store=self.job.store,
            layer=self.job.layer,
            labels=self._labels(scorer),
            ledger=ledger,
            sink=make_sink(self.folder, self.job, manifest),
            turns=turns,
            stop=stop,
            errors=errors,
            threads=self.options.threads or os.cpu_count() or 1,
            decode_processes=self._decode_processes(alone=kind is Worker),
            memory=self.options.memory,
            report=self.options.report,
        )

    def _decode_processes(self, *, alone: bool) -> int:
        options = self.options
        if self.job.what == "texts":
            return 0
        if options.decode_processes is not None or options.threads or not alone:
            return options.decode_processes or 0
        sizes = [shard.items for shard in self.source.shards()]
        images = None if None in sizes else sum(size or 0 for size in sizes)
        return usual_decode_processes(jax.local_devices(), images)

    def _labels(self, scorer: Scorer) -> Labels | Classes | None:
        job = self.job
        if job.classifier is not None:
            return Classes(job.classifier, job.top)
        if not job.labels:
            return None
        return Labels(scorer, job, self.folder, memory=self.options.label_memory)

    def _scorer(self, model: Pretrained) -> Scorer:
        job, options = self.job, self.options
        limit = usual_batch_size(jax.local_devices())
        sizes = [shard.items for shard in self.source.shards()]
        if None not in sizes:
            # Powers of two, so that few shapes are ever compiled.
            limit = min(limit, 1 << max(max(size or 0 for size in sizes) - 1, 0).bit_length())
        size = options.batch_size or limit
        sizes = {"batch_size": size, "text_batch_size": size}
        if options.program is not None:
            sizes |= options.program.batch_sizes
        if job.what == "pairs" and len(set(sizes.values())) > 1:
            raise ValueError(
                "pairs need a saved program with as many texts as images a batch, "
                f"got {sizes['batch_size']} and {sizes['text_batch_size']}"
            )
        scorer = model.scorer(
            tokenizer=job.what != "images" or bool(job.labels),
            several_threads=bool(job.labels),  # `Labels.computed` is called by another
            **sizes,
        )
        return options.program.start(scorer) if options.program is not None else scorer
