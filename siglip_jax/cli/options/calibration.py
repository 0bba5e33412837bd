"""The options of commands that take a calibration, and what they name."""

import argparse
import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siglip_jax.calibration import Calibration

THRESHOLD = "a probability from 0 to 1, or of a calibration f1, precision=0.95, recall=0.9, ..."


def add_calibration_arguments(parser: argparse.ArgumentParser, threshold: str) -> None:
    """Adds --calibration and --threshold, whose help begins with `threshold`."""
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="make probabilities as siglip-jax calibrate found for this model and these labels",
    )
    parser.add_argument("--threshold", metavar="T", help=f"{threshold}: {THRESHOLD}")


def number_or_rule(text: str, calibration: "Calibration | None") -> float | None:
    """The number that --threshold is; None for a rule of the calibration.

    Raises:
      ValueError: if it is neither.

    >>> number_or_rule("0.25", None)
    0.25
    """
    if is_rule(text):
        if calibration is not None:
            return None
        raise ValueError(
            f"--threshold: expected a number from 0 to 1, got {text!r}; f1, precision=0.95 and "
            "their like are thresholds of a calibration: give it as --calibration FILE"
        )
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"--threshold: expected a number from 0 to 1, got {text!r}")
    return value


def is_rule(threshold: str) -> bool:
    """Whether --threshold is the name of a rule, and no number.

    >>> is_rule("precision=0.95"), is_rule("0.95")
    (True, False)
    """
    try:
        float(threshold)
    except ValueError:
        return True
    return False


def opened_calibration(args: argparse.Namespace) -> "Calibration | None":
    """The calibration that the arguments name, with the thresholds of --threshold.

    Raises:
      ValueError: if it is none, or has no such thresholds.
    """
    if args.calibration is None:
        if args.threshold is not None:
            number_or_rule(args.threshold, None)
        return None
    from siglip_jax.calibration import Calibration

    found = Calibration.load(args.calibration)
    if args.threshold is None:
        return found
    number_or_rule(args.threshold, found)
    with about(args):
        return found.with_threshold(args.threshold)


@contextlib.contextmanager
def about(args: argparse.Namespace) -> Generator[None, None, None]:
    """Names the file of --calibration in errors about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{args.calibration}: {error}") from error


def described(args: argparse.Namespace, calibration: "Calibration | None") -> dict[str, Any]:
    """What a result must say of it."""
    made: dict[str, Any] = {}
    if calibration is not None:
        made["calibration"] = {"file": args.calibration, "method": calibration.method}
    if args.threshold is not None:
        rule = is_rule(args.threshold)
        made["threshold"] = args.threshold if rule else float(args.threshold)
    return made
