"""`siglip-jax serve` under load, beside a `Scorer` in a process, in one run.

    python benchmarks/serve_load.py --model siglip_emoji
    python benchmarks/serve_load.py --model siglip_b16_224 --vocabulary spiece.model

The server, the scorer and the clients are processes of their own; what does not work costs
nothing. All images are JPEG files as photographs are; the labels are the same in all requests.
A released model has random weights.

    throughput  images a second with 32 clients, each with one image in hand, and of
                `Scorer.embed_images` with batches of 16 and 32, turn by turn; all logits are
                compared
    latency     at half of that rate, at times drawn from a Poisson process, beside a `Scorer`
                with batches of one
    overload    three times that rate against a short queue: what is accepted and what is refused
    memory      of the server before and after 10,000 requests (only where that is asked for)
    ends        SIGTERM in the middle of load, and the time from kill -9 until ready again

Results: benchmarks/RESULTS.md.
"""

import argparse
import asyncio
import atexit
import base64
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from against_commit import MODEL
from decode_speed import photographs

LABELS = ["a dog on a beach", "a rocket", "a cup of coffee", "a person", "many stars", "a temple"]
CLIENTS = 32
ROUNDS = 5
QUEUE = 64  # images that may wait, in the test of overload

IN_PROCESS = """
import base64, json, sys, time
import siglip_jax
from siglip_jax.scoring.scores import Scores

asked = json.loads(sys.stdin.readline())
files = [base64.b64decode(each) for each in asked["files"]]
model = siglip_jax.load(asked["model"])
scorers = {size: model.scorer(batch_size=size) for size in (1, 16, 32)}
ztxt = scorers[1].embed_labels(asked["labels"])
for scorer in scorers.values():
    scorer.logits(scorer.embed_images(files[:1]), ztxt)
logits = scorers[32].logits(scorers[32].embed_images(files), ztxt)
print(json.dumps(logits.tolist()), flush=True)
for line in sys.stdin:
    size, count = json.loads(line)
    scorer = scorers[size]
    if size == 1:
        times = []
        for i in range(count):
            begun = time.perf_counter()
            z = scorer.embed_images([files[i % len(files)]])
            Scores(scorer.logits(z, ztxt), tuple(asked["labels"])).top(6)
            times.append(time.perf_counter() - begun)
        print(json.dumps(times), flush=True)
    else:
        many = [files[i % len(files)] for i in range(count)]
        begun = time.perf_counter()
        scorer.logits(scorer.embed_images(many), ztxt)
        print(json.dumps(count / (time.perf_counter() - begun)), flush=True)
"""


class Answer(NamedTuple):
    """What came back; status 0 where the connection was closed without an answer."""

    status: int
    seconds: float
    logits: dict[str, float]


class Server:
    """`siglip-jax serve` as a process."""

    def __init__(self, model: str, *options: object) -> None:
        command = [sys.executable, "-P", "-m", "siglip_jax", "serve", "--model", model]
        command += ["--port", "0", "--log", os.devnull, *map(str, options)]
        begun = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)  # whatever a measurement meets with
        assert self.process.stdout is not None
        found = re.search(r"ready at http://127.0.0.1:(\d+)", self.process.stdout.readline())
        assert found, "the server did not start"
        self.port, self.seconds = int(found[1]), time.monotonic() - begun

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]

    def recompiles(self) -> float:
        text = asyncio.run(_raw(self.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"))
        return float(re.search(rb"(?m)^siglip_recompiles_total (\S+)", text)[1])  # type: ignore[index]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait()


class Client:
    """One connection, kept open; requests are bytes that were made before."""

    def __init__(self, port: int) -> None:
        self._port, self._reader, self._writer = port, None, None

    async def ask(self, request: bytes) -> Answer:
        begun = time.perf_counter()
        try:
            if self._writer is None or self._writer.is_closing():
                opened = await asyncio.open_connection("127.0.0.1", self._port)
                self._reader, self._writer = opened
            self._writer.write(request)
            status, body = await _read(self._reader)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Answer(0, time.perf_counter() - begun, {})
        seconds = time.perf_counter() - begun
        if status != 200:
            return Answer(status, seconds, {})
        scores = json.loads(body)["data"][0]["scores"]
        return Answer(status, seconds, {each["label"]: each["logit"] for each in scores})

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


async def _read(reader: Any) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


async def _raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    _, body = await _read(reader)
    writer.close()
    return body


def request_of(file: bytes) -> bytes:
    asked = {"input": base64.b64encode(file).decode(), "labels": LABELS}
    body = json.dumps(asked).encode()
    head = "POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def closed_loop(port: int, requests: list[bytes], count: int) -> tuple[float, list[Answer]]:
    """Seconds and answers of `count` requests by clients that each wait for their answer."""
    answers: list[Any] = [None] * count
    numbers = iter(range(count))

    async def client() -> None:
        connection = Client(port)
        for number in numbers:
            answers[number] = await connection.ask(requests[number % len(requests)])
        connection.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return time.perf_counter() - begun, answers


async def open_loop(
    port: int, requests: list[bytes], count: int, rate: float, meanwhile: Any = None
) -> list[Answer]:
    """Answers of `count` requests sent at times that do not depend on answers."""
    draw, free, tasks = random.Random(0), [], []

    async def one(number: int) -> Answer:
        connection = free.pop() if free else Client(port)
        answer = await connection.ask(requests[number % len(requests)])
        free.append(connection)
        return answer

    due = time.perf_counter()
    for number in range(count):
        due += draw.expovariate(rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(one(number)))
        if meanwhile is not None and number == count // 2:
            meanwhile()
    answers = list(await asyncio.gather(*tasks))
    for connection in free:
        connection.close()
    return answers


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, 100 * share)) if values else float("nan")


def difference(answers: list[Answer], expected: list[list[float]]) -> float:
    """The largest between logits over HTTP and in process."""
    worst = 0.0
    for number, answer in enumerate(answers):
        row = expected[number % len(expected)]
        pairs = zip(LABELS, row, strict=True)
        worst = max([worst, *(abs(answer.logits[label] - value) for label, value in pairs)])
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="siglip_emoji")
    parser.add_argument("--vocabulary", help="for a released model, which has random weights")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement, about")
    parser.add_argument("--requests", type=int, default=0, help="for memory, such as 10000")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{parent}/compiled")
        Path(f"{parent}/compiled").mkdir(mode=0o700)
        model = given.model
        if model != "siglip_emoji":
            model = f"{parent}/model"
            folder = Path(__file__).parent
            subprocess.run([sys.executable, "-c", MODEL, model], cwd=folder, check=True)
            Path(model, "tokenizer.model").write_bytes(Path(given.vocabulary).read_bytes())
        measure(model, given)


def measure(model: str, given: argparse.Namespace) -> None:
    files = photographs(32, 640, 480)
    requests = [request_of(file) for file in files]
    first = Server(model)
    print(f"first start: {first.seconds:.2f} s until ready, all compiled anew", flush=True)
    first.end(signal.SIGKILL)
    server = Server(model)
    print(f"after kill -9: {server.seconds:.2f} s until ready", flush=True)
    inside = subprocess.Popen(
        [sys.executable, "-P", "-c", IN_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    encoded = [base64.b64encode(file).decode() for file in files]
    expected = told(inside, {"model": model, "labels": LABELS, "files": encoded})

    rates = {size: [] for size in ("16", "32", "HTTP")}  # type: ignore[var-annotated]
    count, worst = 64, 0.0
    for round_ in range(ROUNDS + 1):
        for size in ("16", "32"):
            rates[size].append(told(inside, [int(size), count]))
        seconds, answers = asyncio.run(closed_loop(server.port, requests, count))
        rates["HTTP"].append(count / seconds)
        assert all(answer.status == 200 for answer in answers)
        worst = max(worst, difference(answers, expected))
        if not round_:  # warms up, and says how many fill the time
            count = max(64, int(rates["HTTP"].pop() * given.seconds))
            rates = {name: [] for name in rates}
    for size in ("16", "32"):
        shares = [http / here for http, here in zip(rates["HTTP"], rates[size], strict=True)]
        print(
            f"throughput: HTTP {statistics.median(rates['HTTP']):.2f} images/s, in process "
            f"{statistics.median(rates[size]):.2f} with batches of {size}: "
            f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})",
            flush=True,
        )
    print(f"largest difference of a logit: {worst:.2g}; recompiles {server.recompiles():g}")

    rate = statistics.median(rates["HTTP"])
    here = told(inside, [1, max(20, int(given.seconds * rate / 4))])
    half = asyncio.run(open_loop(server.port, requests, int(given.seconds * rate), rate / 2))
    times = [answer.seconds for answer in half if answer.status == 200]
    assert len(times) == len(half)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        mine, base = percentile(times, share), percentile(here, 0.5)
        print(
            f"latency at half the rate: {name} {1000 * mine:.1f} ms, {mine / base:.2f} x a "
            f"scorer's batch of one ({1000 * base:.1f} ms)",
            flush=True,
        )
    if given.requests:
        memory(server, requests, given.requests)
    server.end()
    overload(model, requests, rate, given.seconds)
    told_to_stop(model, requests, rate, given.seconds)
    inside.kill()


def told(process: "subprocess.Popen[str]", what: Any) -> Any:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def memory(server: Server, requests: list[bytes], count: int) -> None:
    held = [server.memory()]
    for _ in range(4):
        _, answers = asyncio.run(closed_loop(server.port, requests, count // 4))
        assert all(answer.status == 200 for answer in answers)
        held.append(server.memory())
    shown = ", ".join(f"{each / 2**20:.0f}" for each in held)
    print(f"memory in MiB, at the start and after each quarter of {count:,} requests: {shown}")
    print(f"recompiles {server.recompiles():g}", flush=True)


def overload(model: str, requests: list[bytes], rate: float, seconds: float) -> None:
    server = Server(model, "--queue", QUEUE)
    answers = asyncio.run(open_loop(server.port, requests, int(3 * rate * seconds), 3 * rate))
    accepted = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer.seconds for answer in answers if answer.status == 429]
    bound = 2 * QUEUE / rate
    other = len(answers) - len(accepted) - len(refused)
    print(
        f"three times the rate, a queue of {QUEUE}: {len(accepted)} accepted, p99 "
        f"{percentile(accepted, 0.99):.2f} s (twice the queue over the rate is {bound:.2f} s); "
        f"{len(refused)} refused, median {1000 * percentile(refused, 0.5):.1f} ms; {other} other",
        flush=True,
    )
    server.end()


def told_to_stop(model: str, requests: list[bytes], rate: float, seconds: float) -> None:
    server = Server(model)
    end: Callable[[], None] = lambda: server.process.send_signal(signal.SIGTERM)  # noqa: E731
    answers = asyncio.run(open_loop(server.port, requests, int(rate * seconds / 2), rate / 2, end))
    code = server.process.wait()
    statuses = {s: sum(a.status == s for a in answers) for s in {a.status for a in answers}}
    lost = [answer for answer in answers if answer.status == 0 and answer.seconds > 0.05]
    print(
        f"SIGTERM in the middle of {len(answers)} requests: exit code {code}, answers by status "
        f"{statuses} (0: not accepted), {len(lost)} accepted and lost",
        flush=True,
    )


if __name__ == "__main__":
    main()
