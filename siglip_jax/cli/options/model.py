"""The options of every command that runs a model, and the model they ask for."""

import argparse
import dataclasses
import os
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.config import ATTENTIONS, DTYPES, WEIGHTS, Execution, Tower
from siglip_jax.messages import choose, reason

if TYPE_CHECKING:
    from siglip_jax.converters import OpenCheckpoint
    from siglip_jax.pretrained import Pretrained

PROFILES = ("big_vision", "transformers", "open_clip", "folder")
# For so few images and texts starting sooner is worth more than running faster.
QUICK_START_LIMIT = 64


def positive(text: str) -> int:
    """argparse type of a count."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def profile_name(text: str) -> str:
    """argparse type of a profile."""
    try:
        return choose("profile", text, PROFILES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_model_arguments(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """The options; with `many`, --model may be given again and again, and named."""
    from siglip_jax.cli.options.checkpoint import add_tower_arguments

    group = parser.add_argument_group("model")
    named = ", or NAME=MODEL to call it NAME; again for more than one" if many else ""
    group.add_argument(
        "--model",
        metavar="MODEL",
        action="append" if many else "store",
        help=f"name of a checkpoint (see siglip-jax list), a file, or a folder{named} (default: "
        "the bundled model of emoji)",
    )
    add_tower_arguments(group)
    group.add_argument(
        "--profile",
        type=profile_name,
        metavar="NAME",
        help=f"whose preprocessing to follow: {', '.join(PROFILES)} (default: folder where the "
        "model's own files do not have the settings of the released weights, else big_vision, as "
        "those were trained)",
    )
    group.add_argument(
        "--vocabulary", metavar="FILE", help="sentencepiece file (default: that of the model)"
    )
    group.add_argument(
        "--res",
        type=positive,
        metavar="PX",
        help="side of the images; resamples the position embedding",
    )
    group.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the image tower (default: float32)"
    )
    group.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="dtype that weights are kept in (default: as stored); int8 has a scale a channel, and "
        "on CPUs with VNNI rounds activations to 8 bits too; bfloat16 computes the text tower in "
        "it too",
    )
    group.add_argument(
        "--fast-decode",
        action="store_true",
        help="decode large JPEG files at a reduced size: faster, with slightly different scores",
    )
    group.add_argument(
        "--exif",
        action="store_true",
        help="apply the EXIF rotation of images, which big_vision ignores: other scores of these",
    )
    group.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="read images of up to N pixels (default: 89,478,485, for small files can claim to be "
        "huge)",
    )
    group.add_argument(
        "--attention",
        choices=ATTENTIONS,
        help="implementation of attention; all agree (default: auto)",
    )
    group.add_argument(
        "--fsdp",
        action="store_true",
        help="shard the weights over the devices (default: a copy on each)",
    )
    group.add_argument(
        "--batch-size", type=positive, metavar="N", help="images a step (default: at most 32)"
    )


def read_programs(args: argparse.Namespace, batches: Mapping[str, int]) -> None:
    """Starts to read the programs that a quick start will ask for (`programs.cache.read_ahead`).

    To be called before `load_model`, and before anything that takes time to import.
    """
    from siglip_jax.programs.cache import read_ahead

    opened = opened_model(args)
    try:
        config = opened.config_at(args.res)
        profile = opened.profile_named(args.profile, res=args.res)
    except ValueError:
        opened.close()
        raise
    read_ahead(config, _execution(args), profile.image.value_range, batches)


class ModelLoader:
    """Loads the model of a command for a job, here or where this has been pickled to.

    Attributes:
      model: its name or path, as it was given.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        *,
        images: bool,
        texts: bool,
        execution: Execution | None = None,
    ) -> None:
        self.model, self._args = args.model, args
        self._options: dict[str, Any] = {"images": images, "texts": texts, "execution": execution}

    def __call__(self) -> "Pretrained":
        return load_model(self._args, local=True, **self._options)

    def __getstate__(self) -> dict[str, Any]:
        # What is open here, and what is shown here, is for this process.
        here = ("opened", "progress")
        kept = {name: value for name, value in vars(self._args).items() if name not in here}
        return self.__dict__ | {"_args": argparse.Namespace(**kept)}


def load_model(
    args: argparse.Namespace,
    *,
    images: bool = False,
    texts: bool = False,
    what: str | None = None,
    local: bool = False,
    execution: Execution | None = None,
) -> "Pretrained":
    """The model that the arguments ask for, on all devices, or on those of this process.

    Args:
      images, texts: which of them it is to embed; one tower alone is refused where it is the
        other that is needed. With `texts` the vocabulary is looked for and checked first: it
        is small, and reading the weights only to find it missing would cost a minute.
      what: is to be made of these; "scores" of both, unless given.
      execution: that of a saved program, in the place of the arguments'.
    """
    from PIL import Image

    from siglip_jax.allocator import keep_freed_memory
    from siglip_jax.checkpoints import VOCABULARIES
    from siglip_jax.fetch import fetch_vocabulary
    from siglip_jax.preprocessing import Tokenizer
    from siglip_jax.preprocessing.decode import drafted, rotated
    from siglip_jax.pretrained import load
    from siglip_jax.programs import FSDP, REPLICATED

    towers: dict[Tower, bool] = {"image": images, "text": texts}
    needed: list[Tower] = [tower for tower, wanted in towers.items() if wanted]
    # On a CPU the memory of one batch is there for the next then.
    keep_freed_memory()
    execution = execution or _execution(args)
    args.dtype = execution.dtype
    with opened_model(args) as opened:
        what = what or ("scores" if images and texts else "images" if images else "texts")
        opened.config.needs(*needed, what=what, name=opened.name)
        mesh = available_mesh(local=local)
        if note := opened.profile_note(args.profile):
            warnings.warn(f"{opened.name}: {note}", stacklevel=2)
        profile = opened.profile_named(args.profile, res=args.res)
        if getattr(args, "fast_decode", False):
            profile = drafted(profile)  # before the weights are read: some profiles have no draft
        if getattr(args, "exif", False):
            profile = rotated(profile)
        if getattr(args, "max_pixels", None):
            image = dataclasses.replace(profile.image, max_pixels=args.max_pixels)
            profile = dataclasses.replace(profile, image=image)
        # Pillow's own word of large images: the profile's limit says more, and what to do.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        vocabulary, known = opened.vocabulary, profile.text.vocabulary
        if texts and vocabulary is None and known:
            vocabulary = fetch_vocabulary(VOCABULARIES[known])
        if texts and vocabulary is not None:
            Tokenizer(vocabulary, profile.text)
            opened = dataclasses.replace(opened, vocabulary=vocabulary)
        with activity("loading weights", unit="bytes") as step:
            return load(
                opened,
                profile=profile,
                res=args.res,
                execution=execution,
                mesh=mesh,
                rules=FSDP if args.fsdp else REPLICATED,
                progress=step.update,
            )


def opened_model(args: argparse.Namespace) -> "OpenCheckpoint":
    """What `args` name, opened once; `load_model` closes it."""
    if "opened" in args:
        return args.opened
    from siglip_jax.cli.options.checkpoint import architecture, open_named

    if args.model is None:
        args.model = "siglip_emoji"
        print(
            "siglip-jax: no --model is given: this is the small bundled one, which knows emoji; "
            "for photographs use --model ViT-B-16-SigLIP",
            file=sys.stderr,
        )
    args.opened = open_named(
        args.model, architecture(args), args.res, args.tower, args.base, args.vocabulary
    )
    return args.opened


def _execution(args: argparse.Namespace) -> Execution:
    dtype = args.dtype or "float32"
    weights = getattr(args, "weights", None)
    return Execution(
        dtype=dtype,
        text_dtype=dtype if weights == "bfloat16" else "float32",
        weights=weights,
        attention=args.attention or "auto",
    )


def available_mesh(*, local: bool = False) -> Any:
    """All devices, or this process's; a ValueError says what is wrong with them."""
    import jax

    from siglip_jax.programs import make_mesh

    try:
        return make_mesh(jax.local_devices() if local else None)
    # jax raises several types, an AssertionError among them, when JAX_PLATFORMS names
    # what this machine lacks or another process holds its TPU.
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS")
        raise ValueError(
            "jax cannot use a device"
            + (f" (JAX_PLATFORMS is {asked!r})" if asked else "")
            + f": {reason(error)}"
        ) from error


def batch_sizes(args: argparse.Namespace, images: int, texts: int) -> dict[str, int]:
    """Sizes of the scorer's batches: powers of two, so that few shapes are ever compiled."""

    def fit(n: int, limit: int) -> int:
        return min(limit, 1 << max(n - 1, 0).bit_length())

    return {
        "batch_size": args.batch_size or fit(images, 32),
        "text_batch_size": fit(texts, 64),
    }


def describe_run(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What a result must say about where it is from."""
    return {
        "model": model.name,
        "profile": model.profile.name,
        "dtype": args.dtype,
        "weights": getattr(args, "weights", None) or "as stored",
    }
