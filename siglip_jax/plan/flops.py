"""How much work a model is, from its configuration: matmuls only.

A matmul of (m, k) and (k, n) is 2·m·k·n FLOPs. What is left out (norms, softmax, GELU) is one
or two percent for released models, and what XLA counts includes it.
"""

from siglip_jax.config import NaFlexVision, Siglip, Size


def block_flops(size: Size, tokens: int) -> int:
    """One transformer block of one example.

    >>> from siglip_jax.config import SIZES
    >>> block_flops(SIZES["B"], 196)
    2892546048
    """
    d = size.width
    projections = 4 * d * d + 2 * d * size.mlp_dim
    return 2 * tokens * projections + 4 * tokens * tokens * d


def patches_of(config: Siglip, patches: int | None = None) -> int:
    """Tokens of an image; of a NaFlex model `patches`; default: those of its training grid."""
    vision = config.image_tower
    if isinstance(vision, NaFlexVision):
        return patches or vision.posemb_grid**2
    return vision.grid**2


def stem_flops(config: Siglip, patches: int | None = None) -> int:
    """Pixels to tokens; of a NaFlex model also its position embedding, resampled."""
    vision, n = config.image_tower, patches_of(config, patches)
    stem = 2 * n * vision.patch**2 * 3 * vision.size.width
    if isinstance(vision, NaFlexVision):
        stem += 2 * n * vision.posemb_grid**2 * vision.size.width
    return stem


def image_flops(config: Siglip, patches: int | None = None) -> int:
    """One image through its tower.

    >>> from siglip_jax.checkpoints import find
    >>> image_flops(find("siglip_b16_224").config) / 1e9
    35.416...
    """
    vision, n = config.image_tower, patches_of(config, patches)
    size, d = vision.size, vision.size.width
    # The pooling head: one probe looks at all tokens.
    head = (
        0
        if vision.pool != "map"
        else 2 * n * 2 * d * d + 2 * 2 * d * d + 4 * n * d + 2 * 2 * d * size.mlp_dim
    )
    return stem_flops(config, patches) + size.depth * block_flops(size, n) + head


def text_flops(config: Siglip) -> int:
    """One text through its tower."""
    text = config.text_tower
    head = 0 if text.head is None else 2 * text.size.width * text.head
    return text.size.depth * block_flops(text.size, text.length) + head


def logit_flops(config: Siglip, images: int, labels: int) -> int:
    """Every image with every label."""
    return 2 * images * labels * config.embed_dim


def training_flops(
    config: Siglip,
    batch: int,
    devices: int,
    *,
    image: bool | None = True,
    text: bool = True,
    accumulate: bool = False,
    remat: bool = False,
    patches: int | None = None,
) -> int:
    """One step on one of `devices` chips: forward, and twice that backward.

    Args:
      image, text: whether any of a tower is trained; of one that is not, forward alone.
        None of images that were embedded before.
      accumulate: whether the batch is embedded in parts, which costs a forward pass more.
      remat: whether blocks are computed again on the way back, another one.
    """
    share, total = batch // devices, 0
    towers = (
        (image, image_flops(config, patches), stem_flops(config, patches)),
        (text, text_flops(config), 0),
    )
    for trained, forward, stem in towers:
        if trained is None:
            continue
        # No one asks for the gradient of pixels.
        backward = 2 * forward - stem if trained else 0
        again = forward * (accumulate + remat) if trained else forward * accumulate
        total += share * (forward + backward + again)
    return total + 3 * logit_flops(config, share, batch)
