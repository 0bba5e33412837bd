"""The folder of an embed job whose embeddings are told, not computed."""

import dataclasses

import numpy as np

from siglip_jax.jobs.job import Job
from siglip_jax.jobs.ledger import Ledger
from siglip_jax.jobs.manifest import Manifest, write_json
from siglip_jax.jobs.sink import make_sink
from siglip_jax.scoring.rows import Prepared, Rows

NAME = "manifest.json"


def written(folder, embeddings, *, shard=16, form="npy"):
    """A finished job of `embeddings` (n, d); rows of NaN are in error, keys are 0.png, 1.png ..."""
    folder.mkdir()
    job = Job(kind="embed", format=form, store=str(embeddings.dtype))
    places = range(len(embeddings))
    shards = [list(places[n : n + shard]) for n in places[::shard]]
    space = {"weights": "w", "architecture": {}, "profile": {"name": "p"}, "execution": {}}
    manifest = Manifest(
        model="m",
        space=space | {"width": embeddings.shape[1]},
        t=0.0,
        b=0.0,
        job=job.describe(),
        source={"identity": "told", "shards": len(shards)},
    )
    write_json(folder / NAME, dataclasses.asdict(manifest))
    sink, ledger = make_sink(folder, job, manifest), Ledger(folder)
    for number, own in enumerate(shards):
        rows = Rows(number, str(number))
        bad = np.isnan(embeddings[own, 0])
        for place, gone in zip(own, bad, strict=True):
            rows.add(Prepared(f"{place}.png", error="gone" if gone else None))
        files = sink.write(rows, {"embedding": embeddings[own][~bad]})
        ledger.write(number, str(number), len(own), rows.errors, files)
    return folder
