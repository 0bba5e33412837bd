"""Zero-shot scoring of images against labels, on one device or many.

The host decodes and resizes in a pool of threads while the device computes; every
batch has the same shape, so that nothing compiles after the first.
"""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from siglip_jax.activity import activity
from siglip_jax.classifier import Classifier
from siglip_jax.config import Layer, NaFlexVision, Tower, check_layer
from siglip_jax.data.item import Item
from siglip_jax.models import SiglipModel, check_patches
from siglip_jax.models.inputs import check_images
from siglip_jax.preprocessing import Patches, Profile, Tokenizer, decode_image, to_float
from siglip_jax.programs.classes import ClassProgram
from siglip_jax.programs.sharding import REPLICATED, Rules, make_mesh, put
from siglip_jax.programs.towers import Program
from siglip_jax.scoring.batches import batches, padded, usual_decode_processes
from siglip_jax.scoring.pipeline import MEMORY, Pipeline
from siglip_jax.scoring.preparation import Preparer
from siglip_jax.scoring.prompts import (
    PLAIN,
    average,
    check_finite,
    check_labels,
    check_templates,
    expand,
)
from siglip_jax.scoring.reading import Unreadable
from siglip_jax.scoring.ready import check_ready, check_ready_patches
from siglip_jax.scoring.rows import NOT_FINITE, Prepared, Rows
from siglip_jax.scoring.scores import Scores
from siglip_jax.scoring.summary import Summary, towers
from siglip_jax.weights.tree import flatten, nested

if TYPE_CHECKING:
    from siglip_jax.explain import Explanation

OnError = Callable[[int, ValueError], None]
_CACHED_LABEL_SETS = 8
_TOWERS: dict[str, tuple[Tower, ...]] = {
    "images": ("image",),
    "texts": ("text",),
    "pairs": ("image", "text"),
}


class Scorer:
    """A model, its weights and its preprocessing, compiled for one mesh.

    An image tower alone embeds images, a text tower alone texts; scores need both.

    Args:
      model: what to run.
      params: big_vision's tree of weights, on the host or on devices.
      profile: preprocessing; needed for anything but ready arrays.
      tokenizer: needed for strings.
      classifier: of a fine-tune that tells classes apart; `classify` needs it.
      mesh: devices, with axes `data` and `model` (`make_mesh`); the default
        device alone unless given.
      rules: how weights lie on the mesh, `REPLICATED`, `FSDP` or your own.
      batch_size: images per step over all devices; rounded up to fill them.
      text_batch_size: texts per step.
      label_chunk: labels whose logits are computed at a time.
      workers: threads that decode images.
      quick_start: for a few batches only: on a CPU the first of them comes sooner, and the
        others 3% later.
      kept: for a service: on a CPU programs are kept in files beside jax's cache of them, where
        that is used, so that many shapes are there soon at the next start.
      several_threads: it is called from several threads, or beside other programs on the same
        devices: on a GPU its programs are no CUDA graphs, which CUDA may refuse to record then.

    Several processes (`jax.distributed`) call every method with the same inputs;
    each sends its own devices their part, and each gets the whole result.

    >>> import jax.numpy as jnp
    >>> from siglip_jax.config import Siglip, Size, Text, Vision
    >>> size = Size(width=8, depth=1, mlp_dim=16, num_heads=2)
    >>> tiny = Siglip(vision=Vision(size=size, patch=8, res=16),
    ...               text=Text(size=size, vocab_size=9, length=4, head=8))
    >>> model = SiglipModel(tiny)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 4), int))
    >>> scorer = Scorer(model, params["params"], batch_size=2)
    >>> scorer.embed_images(np.zeros((3, 16, 16, 3), np.uint8)).shape
    (3, 8)
    """

    def __init__(
        self,
        model: SiglipModel,
        params: Any,
        *,
        profile: Profile | None = None,
        tokenizer: Tokenizer | None = None,
        classifier: Classifier | None = None,
        mesh: Mesh | None = None,
        rules: Rules = REPLICATED,
        batch_size: int = 32,
        text_batch_size: int = 64,
        label_chunk: int = 8192,
        workers: int | None = None,
        quick_start: bool = False,
        kept: bool = False,
        several_threads: bool = False,
    ) -> None:
        self.model, self.profile, self.tokenizer = model, profile, tokenizer
        self.classifier = classifier
        first = cast(list[Any], jax.devices())[:1]
        self.mesh = make_mesh(first) if mesh is None else mesh
        pixels = profile.image.value_range if profile else (-1.0, 1.0)
        self.program = Program(
            model, self.mesh, rules, pixels, quick_start, kept, several_threads=several_threads
        )
        self.params = _place(params, self.program)
        devices = self.mesh.size
        self.batch_size = _round_up("batch_size", batch_size, devices)
        self.text_batch_size = _round_up("text_batch_size", text_batch_size, devices)
        self.label_chunk = _round_up("label_chunk", label_chunk, devices)
        self.workers = workers
        self._label_sets: collections.OrderedDict[Any, np.ndarray] = collections.OrderedDict()

    def __repr__(self) -> str:
        """A few lines, without weights."""
        return self._summary().text()

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return self._summary().html()

    def _summary(self) -> Summary:
        platform = self.mesh.devices.flat[0].platform
        facts = towers(self.model.config)
        facts += [("profile", self.profile.name if self.profile else "none: ready arrays only")]
        if self.model.config.text is not None:
            facts += [("tokenizer", "yes" if self.tokenizer else "none: token ids only")]
        return Summary(
            f"Scorer on {self.mesh.size} {platform}, in batches of {self.batch_size} images and "
            f"{self.text_batch_size} texts",
            facts,
        )

    def preprocess(self, image: Any, *, ready: bool = False) -> Any:
        """One image (path, bytes, PIL image or array), resized as the profile says.

        Args:
          image: what to prepare.
          ready: returns what `model.apply` takes, instead of what `embed_images` takes.

        Returns:
          (res, res, 3) uint8, not normalised yet: `embed_images` does that, on the device, and
          `apply` refuses it. Of a NaFlex model `Patches` of shape (n, ...), normalised.
          With `ready` a batch of one: (1, res, res, 3) float32 in the profile's
          `value_range`, or `Patches` of shape (1, n, ...).

        Raises:
          ValueError: if it cannot be read; the message names the file.
        """
        prepare = self.preparer("images")
        made = prepare.image(decode_image(image, prepare.profile.image))
        if not ready:
            return made
        if isinstance(made, Patches):
            return Patches(*(part[None] for part in made))
        return to_float(made, prepare.profile.image.value_range)[None]

    def preparer(
        self, what: str, memory: int = MEMORY // 2, *, processes: bool = False
    ) -> Preparer:
        """What turns items ("images", "texts" or "pairs") into examples, see `Preparer`.

        Raises:
          ValueError: without a profile, or of one tower alone that lacks the other.
        """
        self.model.config.needs(*_TOWERS[what], what=what)
        if self.profile is None:
            raise ValueError("a Scorer without a profile takes ready arrays only; pass profile=")
        config = self.model.config
        return Preparer(
            what, config, self.profile, self.tokenizer, memory=memory, processes=processes
        )

    def pipeline(
        self, what: str, *, layer: Layer | None = None, classes: bool = False, **options: Any
    ) -> Pipeline:
        """The pipeline that embeds items with this model; `options` as for `Pipeline`.

        With `layer` its rows are patches of images, as `features`; with `classes` what the
        classifier says of images.

        Raises:
          ValueError: for a layer that there is not, and for `classes` without a classifier.
        """
        if layer is not None:
            layer = check_layer(layer, self.model.config)
            options["of_images"] = self.program.features(layer)
        size = self.text_batch_size if what == "texts" else self.batch_size
        options = {"batch_size": size, "threads": self.workers, **options}
        program = self._class_program if classes else self.program
        return Pipeline(program, self.params, what, **options)

    @functools.cached_property
    def _class_program(self) -> ClassProgram:
        return ClassProgram(self.program, self._classifier())

    def _classifier(self) -> Classifier:
        if self.classifier is None:
            raise ValueError(
                "this model has no classifier; score images against labels, or pass classifier="
            )
        return self.classifier

    def width(self, classes: bool = False) -> int:
        """Numbers in a row: of an embedding, or with `classes` of what the classifier says."""
        return len(self._classifier().labels) if classes else self.model.config.embed_dim

    def embed_items(
        self,
        items: Iterable[Item],
        seen: Callable[[Prepared], None] = lambda item: None,
        *,
        what: Literal["images", "texts"] = "images",
        as_jax: bool = False,
        total: int = 0,
        **options: Any,
    ) -> tuple[Any, Rows]:
        """Embeddings (n, d) of the images that can be read, and the rows of all items.

        One of which the model makes NaN is in error too; `seen` is not told of that.

        Args:
          items: read in a thread of their own.
          seen: called with each in order, prepared or in error.
          what: the items are images, or texts.
          as_jax: as for `embed_images`.
          total: how many there are, if that is known: many images are decoded in processes
            where a job's would be.
          options: of `pipeline`.
        """
        rows = _rows(as_jax)
        images = 0 if what == "texts" or self.workers else total
        processes = usual_decode_processes(self.mesh.local_devices, images)
        prepare = self.preparer(what, processes=processes > 0)
        threads = processes or self.workers
        options = {"prepare": prepare, "threads": threads, "on_devices": as_jax, **options}
        with self.pipeline(what, **options) as pipeline:
            try:
                pipeline.embed(pipeline.read(items), rows, seen)
            except Unreadable as error:
                raise error.__cause__ or error from None
            pipeline.drain()
        rows.settle()
        return _first(rows, self.width(options.get("classes", False)), as_jax), rows

    @overload
    def embed_images(self, images: Any, *, on_error: OnError | None = None) -> np.ndarray: ...

    @overload
    def embed_images(
        self, images: Any, *, as_jax: Literal[True], on_error: OnError | None = None
    ) -> jax.Array: ...

    def embed_images(
        self, images: Any, *, as_jax: bool = False, on_error: OnError | None = None
    ) -> np.ndarray | jax.Array:
        """Embeddings (n, d) float32 of unit length.

        Args:
          images: as in `preprocess`, in any iterable; or ready for the
            device: uint8, or floats in the profile's `value_range` ([-1, 1] for
            released weights), of shape (n, res, res, 3), or `Patches`. What is a `jax.Array`
            does not come to the host.
          as_jax: leave the embeddings on the devices of the mesh, the whole on each.
          on_error: called with the index and the error of an image that cannot
            be read, whose row is NaN then; without it the error is raised.

        Raises:
          ValueError: for an image that cannot be read, and for arrays of a wrong shape
            or dtype, channels first, or floats in another range, such as 0..1 or 0..255.
        """
        self.model.config.needs("image", what="images")
        self.model.config.needs_pool(what="embedding of an image")
        return self._of_images(images, on_error, as_jax=as_jax)

    def classify(self, images: Any, *, on_error: OnError | None = None) -> Scores:
        """What the model's own classifier says of every image: logits of its own labels.

        Args:
          images, on_error: as for `embed_images`.

        Raises:
          ValueError: as `embed_images`; if the model has no classifier.

        >>> import jax.numpy as jnp
        >>> from siglip_jax.classifier import Classifier
        >>> from siglip_jax.config import Siglip, Size, Vision
        >>> size = Size(width=8, depth=1, mlp_dim=16, num_heads=2)
        >>> tower = SiglipModel(Siglip(vision=Vision(size=size, patch=8, res=16), text=None))
        >>> params = tower.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
        >>> two = Classifier(labels=("cat", "dog"), kernel=np.zeros((8, 2)),
        ...                  bias=np.float32([0, 1]), pooling="mean", activation="softmax")
        >>> scores = Scorer(tower, params, classifier=two).classify(np.zeros((1, 16, 16, 3)))
        >>> scores.top(1)[0][0].label, scores.logits.tolist()
        ('dog', [[0.0, 1.0]])
        """
        found = self._classifier()
        logits = self._of_images(images, on_error, classes=True)
        return Scores(logits, found.labels, found.activation)

    def features(
        self, images: Any, layer: Layer = "encoded", *, on_error: OnError | None = None
    ) -> np.ndarray:
        """Patches (n, patches, d) float32 as a layer of the image tower gives them.

        What a vision language model takes: not of unit norm, and the only output of a tower
        with `pool="none"`. A NaFlex image that has fewer patches than others is padded at the
        end with rows that mean nothing.

        Args:
          images: as in `embed_images`.
          layer: "encoded" for the patches after the final norm; else after how many blocks,
            before that norm, which is the index into `hidden_states` of transformers: 0 before
            the first block, 1 after it, -1 after the last, -2 after the last but one (LLaVA's
            `vision_feature_layer`).
          on_error: as in `embed_images`.

        Raises:
          ValueError: for an image that cannot be read, arrays of a wrong shape, or a layer
            that there is not.

        >>> from siglip_jax import load
        >>> scorer = load("siglip_emoji").scorer(tokenizer=False, batch_size=1)
        >>> scorer.features(np.zeros((1, 32, 32, 3), np.uint8), layer=-2).shape
        (1, 4, 192)
        """
        return self._of_images(images, on_error, layer=layer)

    def _of_images(self, images: Any, on_error: OnError | None, **options: Any) -> Any:
        if isinstance(images, Patches):
            return self._run_images(images, **options)
        if isinstance(images, (np.ndarray, jax.Array)):
            images = cast(Any, images)
            if images.ndim != 4:
                # One image is an iterable too, of its rows.
                raise ValueError(
                    f"expected an array of shape (n, res, res, 3), got {images.shape}; "
                    "put a single image into a list"
                )
            vision = self.model.config.image_tower
            if isinstance(vision, NaFlexVision):
                check_images(images, vision)  # which are not Patches
            else:
                check_ready(images, self.program.pixels, vision.res)
            return self._run_images(images, **options)
        if isinstance(images, (str, bytes)) or not isinstance(images, Iterable):
            raise ValueError(
                f"expected a list of images or an array, got {type(images).__name__}; "
                "put a single image into a list"
            )
        count, each = itertools.count(), cast(Iterable[Any], images)

        def seen(item: Prepared) -> None:
            place = next(count)
            if item.error is None:
                return
            error = ValueError(f"{item.key}: {item.error}" if item.key else item.error)
            error.__cause__ = item.cause
            if on_error is None:
                raise error
            on_error(place, error)

        z, rows = self.embed_items((Item(_name(image), image) for image in each), seen, **options)
        for index, item in enumerate(rows.items):
            if item.error == NOT_FINITE:
                error = ValueError(f"{item.key or f'image {index}'}: {item.error}")
                if on_error is None:
                    raise error
                on_error(index, error)
        if len(z) == len(rows.items):
            return z
        xp = jnp if isinstance(z, jax.Array) else np
        # Row -1 is one of NaN, for what is in error.
        row_of = np.full(len(rows.items), -1)
        row_of[rows.good] = np.arange(len(z))
        return xp.concatenate([z, xp.full((1, *z.shape[1:]), np.nan, np.float32)])[row_of]

    @overload
    def embed_texts(
        self,
        texts: Sequence[str] | np.ndarray | jax.Array,
        *,
        returned: Callable[[int], None] = ...,
    ) -> np.ndarray: ...

    @overload
    def embed_texts(
        self,
        texts: Sequence[str] | np.ndarray | jax.Array,
        *,
        as_jax: Literal[True],
        returned: Callable[[int], None] = ...,
    ) -> jax.Array: ...

    def embed_texts(
        self,
        texts: Sequence[str] | np.ndarray | jax.Array,
        *,
        as_jax: bool = False,
        returned: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray | jax.Array:
        """Embeddings (n, d) float32 of unit length, of strings or of token ids (n, length).

        Args:
          texts: strings, or token ids; a `jax.Array` of them does not come to the host.
          as_jax: as for `embed_images`.
          returned: called with how many more are back, for progress.

        Raises:
          ValueError: for strings without a tokenizer, or ids outside the vocabulary.
        """
        self.model.config.needs("text", what="texts")
        return self._run("texts", self._ids(texts), as_jax=as_jax, returned=returned)

    def embed_labels(self, labels: Sequence[str], templates: Sequence[str] = PLAIN) -> np.ndarray:
        """Embeddings (n, d) of labels, averaged over prompt templates.

        The last few sets of labels are remembered.

        Raises:
          ValueError: if there are no labels, one is empty or no string, or a template has no `{}`.
        """
        labels, templates = check_labels(labels), check_templates(templates)
        key = (labels, templates)
        if key not in self._label_sets:
            texts = expand(labels, templates)
            with activity("embedding labels", total=len(texts), unit="texts") as step:
                z = average(self.embed_texts(texts, returned=step.advance), len(templates))
            check_finite(z, labels)
            z.flags.writeable = False
            self._label_sets[key] = z
            while len(self._label_sets) > _CACHED_LABEL_SETS:
                self._label_sets.popitem(last=False)
        self._label_sets.move_to_end(key)
        return self._label_sets[key]

    def score(
        self,
        images: Any,
        labels: Sequence[str],
        templates: Sequence[str] = PLAIN,
        *,
        on_error: OnError | None = None,
    ) -> Scores:
        """Logits, probabilities and ranking of every image with every label.

        Raises:
          ValueError: as `embed_images` and `embed_labels`.
        """
        ztxt = self.embed_labels(labels, templates)
        zimg = self.embed_images(images, on_error=on_error)
        return Scores(self.logits(zimg, ztxt), tuple(labels))

    def explain(
        self,
        image: Any,
        labels: Sequence[str],
        *,
        method: str = "integrated_gradients",
        templates: Sequence[str] = PLAIN,
        steps: int | None = None,
    ) -> "Explanation":
        """Which patches of an image its scores come from, for each label.

        Args:
          image: one, as for `preprocess`.
          labels: what is scored.
          method: "integrated_gradients", each patch's share of the difference between the image
            and one of its mean colour; "gradient", the attention of the pooling head times the
            gradient of the score by it; "similarity", the score of each patch as if the head
            looked at it alone; "attention", where the head looks, whatever the label.
          templates: as for `score`.
          steps: gradients that "integrated_gradients" takes; default: 32 to 512, until a map
            misses no more than 1% of what it has to sum to.

        Raises:
          ValueError: as `preprocess` and `embed_labels`; of one tower alone; for a method that
            there is not or that the model's pooling does not have; if a score or a map is NaN.

        >>> from siglip_jax import load
        >>> scorer = load("siglip_emoji").scorer(batch_size=1, text_batch_size=1)
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> made = scorer.explain(image, ["a black square"], method="attention")
        >>> made.grid, made.maps.shape, made.attention.shape
        ((2, 2), (1, 2, 2), (6, 2, 2))
        """
        from siglip_jax.explain.explaining import explain

        self.model.config.needs("image", "text", what="explanations")
        return explain(
            *(self, self._explainer, image, labels),
            method=method,
            templates=templates,
            steps=steps,
        )

    @functools.cached_property
    def _explainer(self) -> Any:
        from siglip_jax.explain.explainer import Explainer

        return Explainer(self.program)

    def logits(self, zimg: np.ndarray, ztxt: np.ndarray) -> np.ndarray:
        """`exp(t) · zimg · ztxt + b`, (images, labels) float32, in chunks of fixed shape."""
        self.model.config.needs("image", "text", what="scores")
        out = np.empty((len(zimg), len(ztxt)), np.float32)
        # A few labels must not cost a full chunk; powers of two bound the compilations.
        few = 1 << max(len(ztxt) - 1, 0).bit_length()
        chunk = min(self.label_chunk, _round_up("labels", few, self.mesh.size))
        for column in range(0, len(ztxt), chunk):
            part = ztxt[column : column + chunk]
            text = put(padded(part, chunk), self.program.label_rows)
            for row in range(0, len(zimg), self.batch_size):
                image = zimg[row : row + self.batch_size]
                where = put(padded(image, self.batch_size), self.program.image_rows)
                block = np.asarray(self.program.logits(self.params, where, text))
                out[row : row + len(image), column : column + len(part)] = block[
                    : len(image), : len(part)
                ]
        return out

    def _run_images(self, images: Any, **options: Any) -> Any:
        if isinstance(images, Patches):
            vision = self.model.config.image_tower
            if not isinstance(vision, NaFlexVision):
                raise ValueError("this model takes images of a fixed resolution, not Patches")
            bounded = self.profile is None or self.profile.image.bounded
            check_patches(images, vision, bounded=bounded)
            check_ready_patches(images, self.program.pixels)
        return self._run("images", images, **options)

    def _run(self, what: str, ready: Any, *, as_jax: bool = False, **options: Any) -> Any:
        """Rows (n, d) of arrays that are ready for the device, or on it."""
        rows = _rows(as_jax)
        with self.pipeline(what, on_devices=as_jax, **options) as pipeline:
            for batch, count in batches(ready, pipeline.batch_size):
                pipeline.submit(rows, batch, count)
            pipeline.drain()
        return _first(rows, self.width(options.get("classes", False)), as_jax)

    def _ids(self, texts: Any) -> np.ndarray:
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of strings, got the string {texts!r}")
        if not isinstance(texts, (np.ndarray, jax.Array)):
            if self.tokenizer is None:
                raise ValueError(
                    "a Scorer without a tokenizer takes token ids only; pass tokenizer="
                )
            return self.tokenizer.encode(list(cast(Iterable[str], texts)))
        ids, text = cast(Any, texts), self.model.config.text_tower
        if ids.ndim != 2 or ids.shape[1] != text.length or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"expected integer token ids of shape (n, {text.length}), "
                f"got {ids.dtype} of shape {ids.shape}"
            )
        least, most = map(int, jax.device_get((ids.min(), ids.max()))) if ids.size else (0, 0)
        if not (least >= 0 and most < text.vocab_size):
            raise ValueError(
                f"token ids must lie in 0..{text.vocab_size - 1}, "
                f"got {least}..{most}; is this another model's vocabulary?"
            )
        return ids.astype(np.int32)


def _rows(as_jax: bool) -> Rows:
    return Rows(join=jnp.concatenate if as_jax else np.concatenate)


def _first(rows: Rows, width: int, as_jax: bool) -> Any:
    z = rows.embeddings(width)[0]
    return jnp.asarray(z) if as_jax else z


def _place(params: Any, program: Program) -> Any:
    """`params` on the mesh, leaf by leaf; what lies there already is not copied.

    Raises:
      ValueError: if names or shapes are not the model's.
    """
    flat, where = flatten(params), flatten(program.params_sharding)
    expected = flatten(program.abstract_params())
    problems = [f"{name} is missing" for name in sorted(where.keys() - flat.keys())]
    problems += [f"{name} is unexpected" for name in sorted(flat.keys() - where.keys())]
    problems += [
        f"{name} has shape {np.shape(flat[name])}, expected {expected[name].shape}"
        for name in sorted(where.keys() & flat.keys())
        if np.shape(flat[name]) != expected[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise ValueError(f"these weights do not fit the model ({len(problems)} problems): {shown}")
    placed: dict[str, Any] = {}
    for name, leaf in flat.items():
        if isinstance(leaf, jax.Array) and leaf.sharding == where[name]:
            placed[name] = leaf
        elif isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            placed[name] = jax.device_put(leaf, where[name])
        else:
            placed[name] = put(leaf, where[name])
    return nested(placed)


def _name(image: object) -> str:
    """What an error calls an image; nothing for an array, of which messages speak themselves."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "Pillow image")
    return "image bytes" if isinstance(image, bytes | bytearray | memoryview) else ""


def _round_up(name: str, value: int, multiple: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return -(-value // multiple) * multiple
