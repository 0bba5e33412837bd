"""Spark's `mapInPandas` with two local workers, of which one dies in the middle.

python spark_tables.py FOLDER    fails if a row is not there
"""

import os
import signal
import sys
from pathlib import Path

import engine_rows
import pyarrow.parquet
from pyspark.sql import SparkSession

from siglip_jax.batch import ImageEmbedder

SCHEMA = "key int, embedding array<float>, error string"


def main():
    folder = Path(sys.argv[1])
    spark = (
        SparkSession.builder.master("local[2,4]")  # two workers, four tries of a task
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", engine_rows.SIZE)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("OFF")
    data = [(row["key"], bytearray(row["image"])) for row in engine_rows.rows()]
    frame = spark.createDataFrame(data, "key int, image binary").repartition(4)
    embedder = ImageEmbedder(engine_rows.MODEL, keep=["key"], batch_size=engine_rows.SIZE)

    def embed(batches):
        for number, batch in enumerate(batches):
            yield embedder(batch)
            if number == 1:
                try:
                    (folder / "killed").mkdir()
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)

    out = str(folder / "out")
    frame.mapInPandas(embed, SCHEMA).write.parquet(out)
    table = pyarrow.parquet.read_table(out)
    engine_rows.check(*(table[name].to_pylist() for name in ("key", "embedding", "error")))
    assert (folder / "killed").exists()
    try:
        missing = ImageEmbedder("/no/such.npz", keep=["key"])
        frame.mapInPandas(lambda frames: map(missing, frames), SCHEMA).count()
        raise AssertionError("a model that is not there")
    except Exception as error:
        assert "/no/such.npz cannot be loaded on the worker" in str(error), error
    spark.stop()


if __name__ == "__main__":
    main()
