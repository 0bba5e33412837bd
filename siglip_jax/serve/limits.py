"""What a service takes: of one request, and of all that it holds at a time."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Every bound of a service.

    Attributes:
      body: bytes of a request.
      images: of a request.
      labels: of a request.
      texts: of a request: of `/v1/embeddings`, or labels times templates.
      scores: of an answer: images times labels, or `top` of them.
      requests: accepted at a time; more are refused at once.
      waiting_images: that are accepted and not yet embedded.
      waiting_texts: the same; a set of labels is as many as it has labels times templates.
      bytes: of the bodies of all accepted requests.
      pixels: of all images that are accepted and not yet embedded, by their headers.
      timeout: seconds for a request from its first byte to its answer.
      grace: seconds after SIGTERM in which what was accepted is answered.
      label_memory: bytes of embeddings of labels that are kept.
    """

    body: int = 32 << 20
    images: int = 64
    labels: int = 10_000
    texts: int = 20_000
    scores: int = 100_000
    requests: int = 512
    waiting_images: int = 2_048
    waiting_texts: int = 40_000
    bytes: int = 256 << 20
    pixels: int = 512_000_000
    timeout: float = 60.0
    grace: float = 30.0
    label_memory: int = 256 << 20

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                value = getattr(self, field.name)
                raise ValueError(f"{field.name} must be more than 0, got {value}")
