"""The three compiled functions of scoring: images, texts, logits.

They hold no weights and touch no device until called, so that they can be lowered
and compiled ahead of time for shapes and meshes that are not present.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from siglip_jax.config import Layer, NaFlexVision, Siglip
from siglip_jax.models import SiglipModel, abstract_inputs, logits, value_range
from siglip_jax.models.activations import batches_split_by, int8_where_fast, multiplies_bytes
from siglip_jax.preprocessing import Patches
from siglip_jax.preprocessing.profiles import PixelRange
from siglip_jax.programs.cache import program_key
from siglip_jax.programs.function import QuickFunction
from siglip_jax.programs.several_threads import for_several_threads
from siglip_jax.programs.sharding import DATA, MODEL, REPLICATED, Rules, sharding_of
from siglip_jax.weights.layout import stored_parameters
from siglip_jax.weights.tree import flatten, nested

# Activations of so many tokens stay in a CPU's cache from one layer to the next.
_CACHED_TOKENS = 800


class Program:
    """Jitted functions of one model on one mesh; of one tower alone, only its own can be called.

    Images and texts are split over all devices of the mesh, labels over its
    `model` axis, weights by `rules`; what comes back is on every device.

    Args:
      quick_start: for a few batches only: on a CPU the first of them comes sooner.
      kept: for long, with many shapes: on a CPU programs are kept in files, as for a quick start.
      several_threads: others run programs on the same devices meanwhile.

    Attributes:
      images: (params, uint8 or float32 (b, res, res, 3), or `Patches`) -> zimg (b, d), or
        patches (b, n, d) of an image tower without pooling.
      features: the same for what a layer gives: `features(layer)` is such a function, whose
        result is (b, n, d).
      texts: (params, int32 (b, length)) -> ztxt (b, d).
      logits: (params, zimg (b, d), ztxt (l, d)) -> (b, l).
      pixels: what uint8 0 and 255 become, unless patches are given.
      tracing: a context in which to trace more functions of the model.
      options: of `jax.jit`, for more functions of the model.

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.programs.sharding import make_mesh
    >>> program = Program(SiglipModel(find("siglip_b16_224").config), make_mesh(jax.devices()[:1]))
    >>> program.lower_images(batch=8).out_info.shape
    (8, 768)
    """

    def __init__(
        self,
        model: SiglipModel,
        mesh: Mesh,
        rules: Rules = REPLICATED,
        pixels: PixelRange = (-1.0, 1.0),
        quick_start: bool = False,
        kept: bool = False,
        several_threads: bool = False,
    ) -> None:
        self.options = for_several_threads(mesh) if several_threads else {}
        self.model, self.mesh, self.pixels = model, mesh, pixels
        place = sharding_of(mesh, rules)
        # From the table: tracing `model.init` for them takes longer than loading a program.
        self._stored = stored_parameters(model.config, model.execution)
        shardings = {name: place(name, shape) for name, (shape, _) in self._stored.items()}
        self.params_sharding = params = nested(shardings)
        self.batch_sharding = self._named(PartitionSpec((DATA, MODEL)))
        self.image_rows = self._named(PartitionSpec(DATA))
        self.label_rows = self._named(PartitionSpec(MODEL))
        self.everywhere = everywhere = self._named(PartitionSpec())

        split = not all(place.is_fully_replicated for place in shardings.values())

        run = model.execution
        in_bytes = run.weights == "int8" and run.activations == "auto"

        # Precision is fixed when a function is traced, whatever is set at its call.
        @contextlib.contextmanager
        def tracing() -> Iterator[None]:
            precision = jax.default_matmul_precision(model.execution.precision)
            rounded = int8_where_fast(in_bytes)
            with precision, rounded, batches_split_by(self.batch_sharding, hold=split):
                yield

        self.tracing = tracing
        apply: Callable[..., Any] = model.apply

        def run_images(take: Callable[[Any], Any], images: Any) -> jax.Array:
            # uint8 crosses to the device, a quarter of the bytes of float32.
            if not isinstance(images, Patches) and images.dtype == jnp.uint8:
                images = value_range(images, *pixels)
            with tracing():
                return in_pieces(take, images, self.piece(tokens=tokens(images, model.config)))

        def embed_images(params: Any, images: Any) -> Float[Array, "b *n d"]:
            def take(piece: Any) -> Any:
                zimg, _, out = apply({"params": params}, piece)
                return out["img/encoded"].astype(jnp.float32) if zimg is None else zimg

            return run_images(take, images)

        def layer_features(params: Any, images: Any, layer: Layer) -> Float[Array, "b n d"]:
            def take(piece: Any) -> Any:
                out = apply({"params": params}, piece, return_blocks=layer != "encoded")[2]
                return features_of(out, layer)

            return run_images(take, images)

        def embed_texts(params: Any, texts: Int[Array, "b length"]) -> Float[Array, "b d"]:
            with tracing():
                return in_pieces(
                    lambda piece: apply({"params": params}, None, piece)[1],
                    texts,
                    self.piece(tokens=model.config.text_tower.length),
                )

        def score(
            params: Any, zimg: Float[Array, "b d"], ztxt: Float[Array, "l d"]
        ) -> Float[Array, "b l"]:
            with tracing():
                return logits(zimg, ztxt, params["t"], params["b"])

        # A file of a program is found by the configuration: no other model may have one.
        quick = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
        quick = quick and (quick_start or kept) and type(model) is SiglipModel

        def jit(task: str, function: Any, *inputs: NamedSharding) -> Any:
            options = {"in_shardings": (params, *inputs), "out_shardings": everywhere}
            if not quick:
                return jax.jit(function, **options, **self.options)
            name = f"{task} for long" if kept else task
            key = functools.partial(program_key, name, model.config, model.execution, pixels)
            # A quick start has no kernels for 8 bits.
            long = kept or (in_bytes and multiplies_bytes())
            return QuickFunction(function, key, mesh.devices.flat[0], options, long=long)

        @functools.cache
        def features(layer: Layer) -> Any:
            return jax.jit(
                functools.partial(layer_features, layer=layer),
                in_shardings=(params, self.batch_sharding),
                out_shardings=everywhere,
                **self.options,
            )

        self.features = features
        self.images = jit("images", embed_images, self.batch_sharding)
        self.texts = jit("texts", embed_texts, self.batch_sharding)
        self.logits = jit("logits", score, self.image_rows, self.label_rows)

    def piece(self, tokens: int) -> int | None:
        """How many examples of `tokens` each are run at a time; None for all at once."""
        device = self.mesh.devices.flat[0]
        if self.mesh.size > 1:
            return None
        if self.model.execution.micro_batch is None and device.platform == "cpu":
            return max(1, _CACHED_TOKENS // tokens)
        return self.model.execution.micro_batch

    def _named(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)

    def abstract_params(self, dtype: Any = None) -> Any:
        """Shapes, dtypes and shardings of the weights; default dtypes: the execution's."""
        places = flatten(self.params_sharding)
        leaves = {
            name: jax.ShapeDtypeStruct(shape, dtype or stored, sharding=places[name])
            for name, (shape, stored) in self._stored.items()
        }
        return nested(leaves)

    def lower_images(self, batch: int, patches: int | None = None) -> jax.stages.Lowered:
        """The image tower, lowered for `batch` images (of `patches` patches each)."""
        images, _ = abstract_inputs(self.model.config, batch, patches)
        if not isinstance(images, Patches):
            images = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
        return self.images.lower(self.abstract_params(), images)

    def lower_texts(self, batch: int) -> jax.stages.Lowered:
        """The text tower, lowered for `batch` texts."""
        _, ids = abstract_inputs(self.model.config, batch)
        return self.texts.lower(self.abstract_params(), ids)

    def lower_logits(self, images: int, labels: int) -> jax.stages.Lowered:
        """The matmul of logits, lowered for `images` image and `labels` label embeddings."""
        d = self.model.config.embed_dim
        z = [jax.ShapeDtypeStruct((n, d), jnp.float32) for n in (images, labels)]
        return self.logits.lower(self.abstract_params(), *z)


def features_of(out: dict[str, Any], layer: Layer) -> Float[Array, "b n d"]:
    """Patches in float32 from what a tower returned beside its embedding with `return_blocks`.

    Args:
      out: of `SiglipModel`.
      layer: see `config.check_layer`.
    """
    if layer == "encoded":
        return out["img/encoded"].astype(jnp.float32)
    blocks = (b["+mlp"] for name, b in out["img/encoder"].items() if name.startswith("block"))
    return [out["img/with_posemb"], *blocks][layer].astype(jnp.float32)


def in_pieces(function: Callable[[Any], jax.Array], examples: Any, size: int | None) -> jax.Array:
    """`function` of a batch, `size` examples at a time or fewer; all at once if None.

    Pieces are of one size, the largest that divides the batch.

    >>> in_pieces(lambda x: 2 * x, jnp.arange(6), 4).tolist()
    [0, 2, 4, 6, 8, 10]
    """
    count = len(jax.tree.leaves(examples)[0])
    if size is None or size >= count:
        return function(examples)
    piece = next(n for n in range(size, 0, -1) if count % n == 0)
    pieces = jax.tree.map(lambda x: x.reshape(-1, piece, *x.shape[1:]), examples)
    z = jax.lax.map(function, pieces)
    return z.reshape(count, *z.shape[2:])


def tokens(images: Any, config: Siglip) -> int:
    """How many tokens the image tower makes of each of `images`."""
    vision = config.image_tower
    if isinstance(vision, NaFlexVision):
        return images.patches.shape[1]
    return vision.grid**2
