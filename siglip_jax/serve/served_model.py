"""A model that answers many requests at a time."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from siglip_jax.calibration import Calibration, Identity
from siglip_jax.checkpoints import find
from siglip_jax.config import NaFlexVision, Tower
from siglip_jax.data.item import Item
from siglip_jax.preprocessing.decode import cost
from siglip_jax.preprocessing.picture_cost import road
from siglip_jax.pretrained import Pretrained
from siglip_jax.scoring.prompts import average, check_finite, expand
from siglip_jax.scoring.rows import Prepared
from siglip_jax.serve.admission import Admission
from siglip_jax.serve.batcher import IN_FLIGHT, Batcher, NotFinite, batch_sizes
from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.label_sets import Found, LabelSets
from siglip_jax.serve.limits import Limits
from siglip_jax.serve.log import note
from siglip_jax.serve.metrics import Metrics
from siglip_jax.serve.together import together

_Result = TypeVar("_Result")
# Labels whose logits are computed at a time: of each power of two up to it there is a program.
_LABEL_CHUNK = 1024
_HINT = re.compile(r"[;.] raise max_pixels.*", re.IGNORECASE | re.DOTALL)


class Ids(NamedTuple):
    """Texts as the text tower takes them.

    Attributes:
      ids: (n, length) int32.
      tokens: that are no padding.
      cut: texts that were longer than the context.
    """

    ids: np.ndarray
    tokens: int
    cut: int


class ServedModel:
    """Towers with a queue each, a pool that decodes, and the labels that were asked for.

    Its coroutines belong to one event loop.

    Args:
      name: what requests call it.
      pretrained: the model, on its devices.
      limits, metrics, admission: of the service.
      batch_size, text_batch_size: most examples of a batch.
      workers: threads that decode; default: one a processor.

    Attributes:
      identity: for calibrations, once one was asked after.
      calibrations: that requests may ask for, by their labels and templates.
    """

    def __init__(
        self,
        name: str,
        pretrained: Pretrained,
        limits: Limits,
        metrics: Metrics,
        admission: Admission,
        *,
        batch_size: int = 32,
        text_batch_size: int = 64,
        workers: int | None = None,
    ) -> None:
        self.name, self.pretrained = name, pretrained
        self._limits, self._metrics, self._admission = limits, metrics, admission
        self.scorer = scorer = pretrained.scorer(
            batch_size=batch_size,
            text_batch_size=text_batch_size,
            label_chunk=_LABEL_CHUNK,
            workers=workers,
            kept=True,
            several_threads=True,
        )
        self.identity: Identity | None = None
        self.calibrations: dict[tuple[frozenset[str], tuple[str, ...]], Calibration] = {}
        # What is decoded is in memory: more threads than processors keep each other waiting.
        workers = workers or os.cpu_count()
        self._pool = ThreadPoolExecutor(workers, "decode")
        # Some images take seconds, in processes of their own; the others do not wait behind them.
        self._long = ThreadPoolExecutor(workers, "decode apart")
        # Apart from decoding, so that none waits behind it; one thread, as the device is one.
        self._small = ThreadPoolExecutor(1, "texts and logits")
        config, devices = scorer.model.config, scorer.mesh.size
        self._batchers: dict[str, Batcher] = {}
        self._starts: dict[str, Any] = {}
        if config.vision is not None:
            self._prepare = scorer.preparer("images")
            self._add("images", batch_sizes(scorer.batch_size, devices))
            self._starts["images"] = self._prepare.image(_first_image(config.vision))
        if config.text is not None:
            self._add("texts", batch_sizes(scorer.text_batch_size, devices))
            self._starts["texts"] = np.zeros(config.text.length, np.int32)
        self._labels = LabelSets(self._embed_labels, limits.label_memory)

    def _add(self, tower: str, sizes: Sequence[int]) -> None:
        pipeline = self.scorer.pipeline(tower, in_flight=IN_FLIGHT)
        self._batchers[tower] = Batcher(pipeline, sizes, tower, self._metrics)

    def is_called(self, name: str) -> bool:
        """Whether `name` is one of the released checkpoint that this is."""
        checkpoint = self.pretrained.checkpoint
        try:
            return checkpoint is not None and find(name) == checkpoint
        except ValueError:
            return False

    def calibration(self, labels: Sequence[str], templates: Sequence[str]) -> Calibration:
        """That of these labels, in any order, and templates.

        Raises:
          ValueError: if there is none; says what there is.
        """
        found = self.calibrations.get((frozenset(labels), tuple(templates)))
        if found is not None and len(labels) == len(found.labels):
            return found
        if not self.calibrations:
            raise ValueError("this service has no calibration of this model")
        for each in self.calibrations.values():
            each.check_labels(sorted(labels, key=_order(each.labels)))
        raise ValueError("the calibration is of other templates")

    def start(self, stopped: Callable[[], bool]) -> None:
        """Compiles all that requests will run, which takes a while; less once `stopped`."""
        with ThreadPoolExecutor(3) as pool:
            waiting = [
                pool.submit(batcher.start, self._starts[tower], stopped)
                for tower, batcher in self._batchers.items()
            ]
            if len(self._batchers) == 2:
                waiting.append(pool.submit(self._compile_logits, stopped))
            for each in waiting:
                each.result()

    def close(self) -> None:
        """Ends its threads."""
        for batcher in self._batchers.values():
            batcher.close()
        self._pool.shutdown(cancel_futures=True)
        self._long.shutdown(cancel_futures=True)
        self._small.shutdown(cancel_futures=True)

    def needs(self, *towers: Tower, what: str) -> None:
        """Refuses what a model of one tower alone cannot do.

        Raises:
          ApiError: 400.
        """
        try:
            self.scorer.model.config.needs(*towers, what=what, name=self.name)
            if "image" in towers:
                self.scorer.model.config.needs_pool(what="embedding of an image")
        except ValueError as error:
            raise ApiError(400, str(error), param="model") from None

    async def embed_images(self, images: Sequence[bytes], params: Sequence[str]) -> np.ndarray:
        """Embeddings (n, d) float32 of the bytes of image files.

        Args:
          images: any number that the limits allow.
          params: where each stands in the request, for messages.

        Raises:
          ApiError: 400 for what is no image, 429 where too much is in hand.
        """
        self.needs("image", what="images")
        note(images=len(images))
        with self._admission.images(len(images)):
            return np.concatenate(await together(map(self._embed_image, images, params)))

    async def _embed_image(self, data: bytes, param: str) -> np.ndarray:
        apart = road(data).process
        with self._admission.pixels(await self._pixels(data, param, apart=apart)):
            begun = time.monotonic()
            pool = self._long if apart else self._pool
            made = await _run(pool, self._prepare, Item("", data))
            self._metrics.decode_seconds.observe(time.monotonic() - begun)
            if made.error is not None:
                raise _not_an_image(made, param)
            return await self._embedded("images", [made.example], [param])

    async def _pixels(self, data: bytes, param: str, *, apart: bool) -> int:
        """Of an image, by its header."""
        profile = self._prepare.profile.image
        try:
            # Most headers are read in microseconds; some take a process.
            size = await _run(self._long, cost, data, profile) if apart else cost(data, profile)
        except ValueError as error:
            raise _wrong_image(str(error), param) from None
        return 0 if size is None else size.height * size.width

    async def encode(self, texts: Sequence[str], param: str) -> Ids:
        """Ids of texts, by the model's own rules.

        Raises:
          ApiError: 400 for what the vocabulary has no ids of.
        """
        self.needs("text", what="texts")
        tokenizer = self.scorer.tokenizer
        assert tokenizer is not None
        begun = time.monotonic()
        try:
            ids, cut = await _run(self._small, tokenizer.encode_counting, list(texts))
        except ValueError as error:
            raise ApiError(400, f"{param}: {error}", param=param) from None
        self._metrics.tokenization_seconds.observe(time.monotonic() - begun)
        return Ids(ids, int((ids != tokenizer.profile.pad).sum()), cut)

    def checked_ids(self, texts: Sequence[tuple[Sequence[int], str]]) -> np.ndarray:
        """Token ids (n, length) int32 of texts, each with where it stands in the request.

        Shorter ones are padded as the model's own tokenizer does; they end in its end-of-text id.

        Raises:
          ApiError: 400 for ids outside the vocabulary, and for too many.
        """
        self.needs("text", what="texts")
        text = self.scorer.model.config.text_tower
        profile = self.pretrained.profile.text
        made = np.full((len(texts), text.length), profile.pad, np.int32)
        for row, (ids, param) in zip(made, texts, strict=True):
            if not 0 < len(ids) <= text.length:
                raise ApiError(
                    400, f"{param}: expected 1 to {text.length} token ids, got {len(ids)}",
                    param=param,
                )  # fmt: skip
            wrong = next((i for i in ids if not 0 <= i < text.vocab_size), None)
            if wrong is not None:
                raise ApiError(
                    400,
                    f"{param}: {wrong} is no token id of {self.name}, which has 0 to "
                    f"{text.vocab_size - 1}; ids of another vocabulary, such as tiktoken's, mean "
                    "other words here: send texts",
                    param=param,
                )
            if len(ids) < text.length and ids[-1] not in (profile.eos, profile.pad):
                raise ApiError(
                    400,
                    f"{param}: token ids must end in the end-of-text id {profile.eos}",
                    param=param,
                )
            row[: len(ids)] = ids
        return made

    async def embed_ids(self, ids: np.ndarray, param: str) -> np.ndarray:
        """Embeddings (n, d) float32 of token ids (n, length) of this model."""
        self.needs("text", what="texts")
        note(texts=len(ids))
        with self._admission.texts(len(ids)):
            return await self._embedded("texts", ids, [f"{param}[{i}]" for i in range(len(ids))])

    async def embed_labels(
        self, labels: Sequence[str], templates: Sequence[str]
    ) -> tuple[np.ndarray, Found]:
        """Embeddings (n, d) of labels, averaged over templates; kept for the next request."""
        self.needs("image", "text", what="scores")
        z, found = await self._labels.get(tuple(labels), tuple(templates))
        self._metrics.label_cache.labels(found).inc()
        note(texts=len(labels) * len(templates))
        return z, found

    async def _embed_labels(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Any:
        made = await self.encode(expand(labels, templates), "labels")
        z = average(await self.embed_ids(made.ids, "labels"), len(templates))
        check_finite(z, labels)
        return z

    async def logits(self, zimg: np.ndarray, ztxt: np.ndarray) -> np.ndarray:
        """(images, labels) float32."""
        return await _run(self._small, self.scorer.logits, zimg, ztxt)

    async def _embedded(self, tower: str, examples: Any, params: Sequence[str]) -> np.ndarray:
        try:
            return await asyncio.wrap_future(self._batchers[tower].submit(examples))
        except NotFinite as error:
            param = params[error.index]
            raise ApiError(400, f"{param}: {error}", param=param) from None

    def _compile_logits(self, stopped: Callable[[], bool]) -> None:
        width = self.scorer.width()
        count = 1
        while count <= self.scorer.label_chunk and not stopped():
            self.scorer.logits(np.zeros((1, width), np.float32), np.zeros((count, width)))
            count *= 2


def _order(labels: Sequence[str]) -> Callable[[str], int]:
    places = {label: place for place, label in enumerate(labels)}
    return lambda label: places.get(label, len(places))


def _first_image(vision: Any) -> np.ndarray:
    side = vision.patch if isinstance(vision, NaFlexVision) else vision.res
    return np.zeros((side, side, 3), np.uint8)


def _not_an_image(made: Prepared, param: str) -> ApiError:
    return _wrong_image(str(made.error), param)


def _wrong_image(said: str, param: str) -> ApiError:
    # How to raise the limit is said to who runs the service, and to no client of it.
    said = _HINT.sub("", said)
    return ApiError(
        400, f"{param}: {said.removeprefix('image bytes: ')}", param=param, code="invalid_image"
    )


async def _run(pool: Executor, call: Callable[..., _Result], *arguments: Any) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)
