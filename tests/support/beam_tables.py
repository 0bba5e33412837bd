"""Beam's `RunInference` on the direct runner.

python beam_tables.py FOLDER    fails if a row is not there
"""

import json
import sys
from pathlib import Path

import apache_beam as beam
import engine_rows
from apache_beam.ml.inference.base import RunInference

from siglip_jax.batch import ImageEmbedder, LabelScorer
from siglip_jax.batch.beam import model_handler


def line(result):
    inference = {**result.inference, "embedding": result.inference["embedding"].tolist()}
    return json.dumps({"key": result.example["key"]} | inference)


def main():
    folder = Path(sys.argv[1])
    sizes = {"min_batch_size": 4, "max_batch_size": 16}
    handler = model_handler(ImageEmbedder(engine_rows.MODEL, batch_size=engine_rows.SIZE), **sizes)
    with beam.Pipeline() as pipeline:
        rows = pipeline | beam.Create(engine_rows.rows())
        lines = rows | RunInference(handler) | beam.Map(line)
        lines | beam.io.WriteToText(str(folder / "out"), num_shards=1)
    found = [json.loads(row) for path in folder.glob("out*") for row in path.open()]
    engine_rows.check(*([row[name] for row in found] for name in ("key", "embedding", "error")))
    best = LabelScorer(engine_rows.MODEL, ["brown circle", "a cat"], top=1, batch_size=8)
    with beam.Pipeline() as pipeline:
        rows = pipeline | beam.Create(engine_rows.rows()[:9])
        labels = (
            rows | RunInference(model_handler(best)) | beam.Map(lambda r: r.inference["labels"])
        )
        labels | beam.Map(json.dumps) | beam.io.WriteToText(str(folder / "labels"), num_shards=1)
    found = [json.loads(row) for path in folder.glob("labels*") for row in path.open()]
    assert sorted(map(len, found)) == [0, 0, 1, 1, 1, 1, 1, 1, 1], found
    try:
        with beam.Pipeline() as pipeline:
            rows = pipeline | beam.Create(["a.jpg"])
            rows | RunInference(handler)
        raise AssertionError("rows that are none")
    except Exception as error:
        assert "expected rows that are dicts, such as" in str(error), error


if __name__ == "__main__":
    main()
