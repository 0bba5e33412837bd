"""The parts of a run: what each answers, how long it may take, and when its turn is."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One part, a module of `parts/` in a process of its own.

    Attributes:
      answers: what it tells, in a few words.
      seconds: its budget; fewer where little time is left.
      turn: "together" with others, because nothing in it is timed; "alone"; or "prepared":
        it compiles while parts run together and waits for its turn before it times anything.
      quick: XLA takes the first kernel that is right, and does not time others.
    """

    name: str
    answers: str
    seconds: float
    turn: Literal["together", "alone", "prepared"]
    quick: bool = False


# The most valuable first: when time runs out, the last ones go without.
FIRST = Part(
    name="towers",
    answers="our images/s, share of the matmul peak, memory, compile time, latency",
    seconds=50,
    turn="alone",
)
PARTS = (
    FIRST,
    Part(
        name="models",
        answers="goldens, attention, masks, head widths, scan and bfloat16 against the CPU",
        seconds=120,
        turn="together",
    ),
    Part(
        name="lowered",
        answers="int8 and bfloat16 weights; the bundled model's accuracy",
        seconds=120,
        turn="together",
        quick=True,
    ),
    Part(
        name="loss",
        answers="the ring loss and its gradients; device resize",
        seconds=90,
        turn="together",
        quick=True,
    ),
    Part(
        name="resume",
        answers="200 training steps, killed and resumed, against a run that was not",
        seconds=120,
        turn="together",
        quick=True,
    ),
    Part(
        name="suite",
        answers="the project's own conformance tests on this device",
        seconds=120,
        turn="together",
        quick=True,
    ),
    Part(
        name="topology",
        answers="programs compiled ahead of time for a TPU slice",
        seconds=90,
        turn="together",
    ),
    Part(
        name="beside",
        answers="the same weights in timm, open_clip and transformers, turn by turn",
        seconds=60,
        turn="prepared",
    ),
    Part(
        name="choices",
        answers="attention implementations, loop or scan, weights: what Execution should choose",
        seconds=35,
        turn="prepared",
    ),
    Part(
        name="training",
        answers="the training step beside open_clip's sigmoid loss",
        seconds=25,
        turn="prepared",
    ),
    Part(
        name="job",
        answers="JPEG files to Parquet, and what bounds it",
        seconds=45,
        turn="alone",
    ),
    Part(
        name="transfer",
        answers="host to device, and how much of it hides behind the model",
        seconds=15,
        turn="alone",
    ),
    Part(
        name="profile",
        answers="which kernels the time of a step goes to",
        seconds=20,
        turn="alone",
    ),
    Part(
        name="flags",
        answers="XLA flags",
        seconds=20,
        turn="prepared",
    ),
)
# Parts that run together end by then, so that the speed parts have their turn.
TOGETHER = 150.0
# How long the speed parts wait for each other to have compiled what they began.
READY = 35.0
