"""Serve models over HTTP: images and labels in, sigmoid probabilities out.

  siglip-jax serve --model ViT-B-16-SigLIP
  curl localhost:8000/v1/classify -F file=@photo.jpg -F labels="a dog" -F labels="a cat"

POST /v1/classify and /v1/embeddings (as of OpenAI, images too), Hugging Face's
zero-shot payload on POST / and KServe's on /v2; GET / is a page to try it, /openapi.json
says the rest. Padding, resizing and tokenization are the model's, whatever a request
says. Requests share batches; over the bounds they get 429 and Retry-After at once.
/health/ready is 200 once all is compiled: soon, from the second start.

  siglip-jax serve --model small=siglip2_b16_256 --model large=siglip2_l16_256
  siglip-jax serve --model siglip2_b16_256 --index index/  # POST /v1/search, and a page

SIGTERM and Ctrl-C answer what was accepted, at most --grace seconds long, with exit
code 0.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.cli.options.model import (
    add_model_arguments,
    load_model,
    opened_model,
    positive,
)
from siglip_jax.messages import optional_package

if TYPE_CHECKING:
    from siglip_jax.pretrained import Pretrained

NAME = "serve"
HELP = "serve models over HTTP: scores, embeddings, a page to try them"
USAGE = "%(prog)s [--model MODEL ...] [--host HOST] [--port PORT] [options]"
_MB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host", default="127.0.0.1", metavar="HOST",
        help="address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0 for all)",
    )  # fmt: skip
    group.add_argument(
        "--port", type=_port, default=8000, metavar="PORT",
        help="port to listen on (default: 8000; 0 for any that is free)",
    )  # fmt: skip
    group.add_argument(
        "--keys", metavar="FILE",
        help="file of API keys, one a line, of which a request must have one (default: those of "
        "SIGLIP_JAX_API_KEYS; without any, everyone may ask)",
    )  # fmt: skip
    group.add_argument(
        "--index", metavar="DIR",
        help="folder that siglip-jax embed wrote with one of the models, for POST /v1/search "
        "and the page (default: nothing is searched)",
    )  # fmt: skip
    group.add_argument(
        "--fetch", nargs="+", default=[], metavar="HOST",
        help="hosts whose images may be given by URL, such as images.example.com or "
        "*.example.com (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--cors", nargs="+", default=[], metavar="ORIGIN",
        help="web pages that may ask, such as https://example.com (default: this one's only)",
    )  # fmt: skip
    group.add_argument(
        "--log", metavar="FILE",
        help="file to add a line of JSON to for each request (default: stderr)",
    )  # fmt: skip
    group.add_argument(
        "--calibration", nargs="+", default=[], metavar="FILE",
        help="what siglip-jax calibrate wrote, for requests that ask for calibrated probabilities",
    )  # fmt: skip
    group.add_argument(
        "--threshold", metavar="RULE",
        help="from when on a calibration accepts a label: f1, precision=0.95, 0.5, ...",
    )  # fmt: skip
    limits = parser.add_argument_group("bounds")
    limits.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="S",
        help="seconds that a request may take (default: 60)",
    )  # fmt: skip
    limits.add_argument(
        "--grace", type=_seconds, default=30.0, metavar="S",
        help="seconds after SIGTERM to answer what was accepted (default: 30)",
    )  # fmt: skip
    limits.add_argument(
        "--queue", type=positive, default=2048, metavar="N",
        help="images that may wait; more are refused with 429 (default: 2048)",
    )  # fmt: skip
    limits.add_argument(
        "--max-body", type=positive, default=32, metavar="MB",
        help="megabytes of a request (default: 32)",
    )  # fmt: skip
    add_model_arguments(parser, many=True)


def run(args: argparse.Namespace) -> int:
    for module in ("starlette", "uvicorn", "msgspec", "prometheus_client", "python_multipart"):
        optional_package(module, why="siglip-jax serve needs it")
    from siglip_jax.calibration import Calibration
    from siglip_jax.serve import Limits, create_app
    from siglip_jax.serve.keys import read_keys
    from siglip_jax.serve.log import writer
    from siglip_jax.serve.server import address, bind, exposed
    from siglip_jax.serve.server import run as run_until_told

    limits = Limits(
        timeout=args.timeout,
        grace=args.grace,
        waiting_images=args.queue,
        body=args.max_body * _MB,
    )
    keys = read_keys(Path(args.keys).expanduser() if args.keys else None)
    fetch = None
    if args.fetch:
        from siglip_jax.serve.remote import Fetcher  # with aiohttp, which takes 0.2 s

        fetch = Fetcher(args.fetch, most_bytes=limits.body, timeout=limits.timeout).fetch
    calibrations = [Calibration.load(Path(file).expanduser()) for file in args.calibration]
    if args.threshold is not None:
        if not calibrations:
            raise ValueError("--threshold is a calibration's; give --calibration FILE")
        calibrations = [each.with_threshold(args.threshold) for each in calibrations]
    # First of all that takes long: a port that is taken is said at once.
    listening = bind(args.host, args.port)
    if warning := exposed(listening, len(keys)):
        print(f"siglip-jax: warning: {warning}", file=sys.stderr)
    with listening, writer(Path(args.log).expanduser() if args.log else None) as log:
        models = _models(args)
        sizes = {"batch_size": args.batch_size} if args.batch_size else {}
        app = create_app(
            models,
            limits=limits,
            fetch=fetch,
            keys=keys,
            index=args.index,
            calibrations=calibrations,
            cors=args.cors,
            log=log,
            **sizes,
        )
        service = app.state.service
        where = address(listening)
        names = ", ".join(models)
        print(f"siglip-jax: {names} at {where}, once compiled", file=sys.stderr)

        def ready() -> None:
            args.progress.close()
            print(f"siglip-jax: ready at {where}", flush=True)

        run_until_told(
            app,
            listening,
            grace=args.grace,
            on_stop=service.stop_taking,
            is_ready=lambda: service.ready,
            on_ready=ready,
        )
    return 0


def _models(args: argparse.Namespace) -> "dict[str, Pretrained]":
    """The models, by the names that requests give."""
    loaded: dict[str, Any] = {}
    for given in args.model or [None]:
        name, path = _named(given)
        one = argparse.Namespace(**{**vars(args), "model": path})
        config = opened_model(one).config
        model = load_model(
            one, images=config.vision is not None, texts=config.text is not None, what="requests"
        )
        name = name or Path(model.name).name
        if name in loaded:
            raise ValueError(
                f"--model: two models are called {name}; give one as NAME={path or name}"
            )
        loaded[name] = model
    return loaded


def _named(given: str | None) -> tuple[str, str | None]:
    """NAME and MODEL of what --model was given.

    >>> _named("small=siglip2_b16_256"), _named("runs/x=1/model"), _named(None)
    (('small', 'siglip2_b16_256'), ('', 'runs/x=1/model'), ('', None))
    """
    name, separator, path = (given or "").partition("=")
    if not separator or "/" in name:
        return "", given
    if not name or not path:
        raise ValueError(f"--model: expected NAME=MODEL, got {given!r}")
    return name, path


def _port(text: str) -> int:
    """argparse type of a port."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    """argparse type of a time."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text!r}")
    return value
