"""What a service counts, for Prometheus: the names that TEI has, and a few of our own."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service, in a registry of their own.

    >>> metrics = Metrics()
    >>> metrics.batch("images", 3, 4, [0.0, 0.0, 0.0])
    >>> b'siglip_padding_rows_total{tower="images"} 1.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"siglip_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"siglip_{name}", what, labels, registry=registry)

        def seconds(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(
                f"siglip_{name}_seconds", what, labels, buckets=_SECONDS, registry=registry
            )

        self.requests = counter("request", "requests", "path")
        self.successes = counter("request_success", "requests that were answered", "path")
        self.failures = counter("request_failure", "requests that were refused", "path", "reason")
        self.request_seconds = seconds("request_duration", "from first byte to answer", "path")
        self.queue_seconds = seconds("request_queue_duration", "waiting for a batch", "tower")
        self.decode_seconds = seconds("request_decode_duration", "decoding an image")
        self.tokenization_seconds = seconds("request_tokenization_duration", "texts to ids")
        self.inference_seconds = seconds("request_inference_duration", "of a batch", "tower")
        self.batch_sizes = Histogram(
            "siglip_batch_size", "examples of a batch", ("tower",), buckets=_SIZES,
            registry=registry,
        )  # fmt: skip
        self.queue_sizes = gauge("queue_size", "examples that wait for a batch", "tower")
        self.padding_rows = counter("padding_rows", "rows that fill up batches", "tower")
        self.dropped_entries = counter("dropped_entries", "examples whose client went", "tower")
        self.label_cache = counter("label_cache", "sets of labels asked for", "found")
        self.requests_in_flight = gauge("requests_in_flight", "accepted and not yet answered")
        self.images_in_flight = gauge("images_in_flight", "images not yet embedded")
        self.texts_in_flight = gauge("texts_in_flight", "texts not yet embedded")
        self.bytes_in_flight = gauge("bytes_in_flight", "bytes of bodies that are held")
        self.pixels_in_flight = gauge("pixels_in_flight", "pixels of images not yet embedded")
        self.recompiles = counter("recompiles", "programs compiled after the start")
        self.ready = gauge("ready", "1 when requests are taken")

    def waiting(self, tower: str, count: int) -> None:
        self.queue_sizes.labels(tower).set(count)

    def dropped(self, tower: str) -> None:
        self.dropped_entries.labels(tower).inc()

    def batch(self, tower: str, count: int, size: int, queued: Sequence[float]) -> None:
        """A batch of `count` examples and copies up to `size`, each `queued` so many seconds."""
        self.batch_sizes.labels(tower).observe(count)
        self.padding_rows.labels(tower).inc(size - count)
        for seconds in queued:
            self.queue_seconds.labels(tower).observe(seconds)

    def computed(self, tower: str, seconds: float) -> None:
        self.inference_seconds.labels(tower).observe(seconds)

    def text(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)
