"""The callables as a model of Apache Beam's `RunInference`."""

# Beam is installed by those who have pipelines.
# pyright: reportMissingImports=false

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from siglip_jax.batch.columns import Columns
from siglip_jax.batch.embedders import BatchCallable
from siglip_jax.messages import optional_package


def model_handler(model: BatchCallable, **options: Any) -> Any:
    """A `ModelHandler` for `RunInference`, over rows that are dicts.

    The inference of a row is a dict of what the callable makes: `embedding` (d,), say, and
    `error`, empty where all is well. The columns of the row are in its `example`.

    Args:
      model: an `ImageEmbedder`, a `TextEmbedder` or a `LabelScorer`.
      options: of Beam's `ModelHandler`, such as `min_batch_size` and `max_batch_size`.

    Raises:
      ValueError: if Beam is not installed.

        import apache_beam as beam
        from apache_beam.ml.inference.base import RunInference
        from siglip_jax.batch import ImageEmbedder
        from siglip_jax.batch.beam import model_handler

        handler = model_handler(ImageEmbedder("ViT-B-16-SigLIP"), max_batch_size=256)
        with beam.Pipeline() as pipeline:
            rows = pipeline | beam.Create([{"path": "gs://bucket/a.jpg"}])
            rows | RunInference(handler) | beam.Map(print)
    """
    base = optional_package("apache_beam.ml.inference.base", name="Apache Beam")

    class Handler(base.ModelHandler):  # type: ignore[name-defined]
        """Loads in the process that infers."""

        def load_model(self) -> BatchCallable:
            model.load()
            return model

        def run_inference(
            self,
            batch: Sequence[Mapping[str, Any]],
            model: BatchCallable,
            inference_args: Mapping[str, Any] | None = None,
        ) -> Iterable[Any]:
            made = model.made(Columns(columns_of_rows(batch)))
            for number, row in enumerate(batch):
                own = {name: values[number] for name, values in made.items()}
                yield base.PredictionResult(row, own)

        def get_metrics_namespace(self) -> str:
            return "siglip_jax"

    return Handler(**options)


def columns_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as a batch of columns; what a row lacks is None.

    Raises:
      ValueError: if one is no dict.

    >>> columns_of_rows([{"path": "a.jpg", "n": 1}, {"path": "b.jpg"}])
    {'path': ['a.jpg', 'b.jpg'], 'n': [1, None]}
    """
    for row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(
                "expected rows that are dicts, such as {'path': 'gs://bucket/a.jpg'}, got "
                f"{type(row).__name__}"
            )
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
