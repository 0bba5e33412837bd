"""The three compiled functions of scoring: images, texts, logits.

They hold no weights and touch no device until called, so that they can be lowered
and compiled ahead of time for shapes and meshes that are not present.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siglip_jax.models import Patches, SiglipModel, abstract_inputs, logits, value_range
from siglip_jax.models.activations import batches_split_by
from siglip_jax.scoring.sharding import DATA, MODEL, REPLICATED, Rules, sharding_of


class Program:
    """Jitted functions of one model on one mesh.

    Images and texts are split over all devices of the mesh, labels over its
    `model` axis, weights by `rules`; what comes back is on every device.

    Attributes:
      images: (params, uint8 or float32 (b, res, res, 3), or `Patches`) -> zimg (b, d).
      texts: (params, int32 (b, length)) -> ztxt (b, d).
      logits: (params, zimg (b, d), ztxt (l, d)) -> (b, l).

    >>> from siglip_jax.checkpoints import find
    >>> from siglip_jax.scoring.sharding import make_mesh
    >>> program = Program(SiglipModel(find("siglip_b16_224").config), make_mesh(jax.devices()[:1]))
    >>> program.lower_images(batch=8).out_info.shape
    (8, 768)
    """

    def __init__(
        self,
        model: SiglipModel,
        mesh: Mesh,
        rules: Rules = REPLICATED,
        pixels: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        self.model, self.mesh = model, mesh
        place = sharding_of(mesh, rules)
        inputs = abstract_inputs(model.config)
        tree = jax.eval_shape(lambda *xs: model.init(jax.random.key(0), *xs), *inputs)
        shapes = flatten_dict(tree["params"], sep="/")
        params = unflatten_dict({k: place(k, v.shape) for k, v in shapes.items()}, sep="/")
        self.params_sharding, self._params_shapes = params, tree["params"]
        self.batch_sharding = self._named(PartitionSpec((DATA, MODEL)))
        self.image_rows = self._named(PartitionSpec(DATA))
        self.label_rows = self._named(PartitionSpec(MODEL))
        everywhere = self._named(PartitionSpec())

        # Precision is fixed when a function is traced, whatever is set at its call.
        @contextlib.contextmanager
        def tracing() -> Iterator[None]:
            precision = jax.default_matmul_precision(model.execution.precision)
            with precision, batches_split_by(self.batch_sharding):
                yield

        def embed_images(params: Any, images: Any) -> jax.Array:
            # uint8 crosses to the device, a quarter of the bytes of float32.
            if not isinstance(images, Patches) and images.dtype == jnp.uint8:
                images = value_range(images, *pixels)
            with tracing():
                return model.apply({"params": params}, images)[0]

        def embed_texts(params: Any, texts: jax.Array) -> jax.Array:
            with tracing():
                return model.apply({"params": params}, None, texts)[1]

        def score(params: Any, zimg: jax.Array, ztxt: jax.Array) -> jax.Array:
            with tracing():
                return logits(zimg, ztxt, params["t"], params["b"])

        def jit(function: Any, *inputs: NamedSharding) -> Any:
            return jax.jit(function, in_shardings=(params, *inputs), out_shardings=everywhere)

        self.images = jit(embed_images, self.batch_sharding)
        self.texts = jit(embed_texts, self.batch_sharding)
        self.logits = jit(score, self.image_rows, self.label_rows)

    def _named(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)

    def abstract_params(self, dtype: Any = jnp.float32) -> Any:
        """Shapes, dtypes and shardings of the weights."""
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=where),
            self._params_shapes,
            self.params_sharding,
        )

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
        """The product, lowered for `images` image and `labels` label embeddings."""
        d = self.model.config.embed_dim
        z = [jax.ShapeDtypeStruct((n, d), jnp.float32) for n in (images, labels)]
        return self.logits.lower(self.abstract_params(), *z)
