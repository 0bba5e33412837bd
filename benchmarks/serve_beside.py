"""`siglip-jax serve` beside infinity, the same weights and the same requests, in one run.

    python -m venv infinity && infinity/bin/pip install "infinity-emb[torch,vision,server]" aiohttp
    python benchmarks/serve_beside.py --infinity infinity/bin/infinity_emb --vocabulary spiece.model

B/16 with random weights is converted to transformers' format for infinity. Requests are
infinity's own, which the service takes as they are: a data URI of a JPEG and its modality. The
servers are processes that are asked turn by turn, by 32 clients with one image in hand each.

    throughput  images a second of each, and the ratio of a round
    images      the largest difference of an embedding (unit norm) between the two
    texts       of one text asked alone and asked beside a longer one, in each: a server that pads
                by the batch answers differently, which is what SigLIP was not trained with

Results: benchmarks/RESULTS.md.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from against_commit import MODEL
from decode_speed import photographs
from serve_load import CLIENTS, _raw, _read

ROUNDS = 5
TEXTS = ["a dog", "two people on a beach with a red umbrella, seen from far above in the evening"]


class Peer:
    """A server as a process, and how it is asked for embeddings."""

    def __init__(self, name: str, path: str, port: int, command: list[object]) -> None:
        self.name, self.path, self.port = name, path, port
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([*map(str, command)], stdout=quiet, stderr=quiet)

    def wait(self, seconds: float = 600) -> None:
        """Until it answers."""
        until = time.monotonic() + seconds
        while True:
            try:
                asyncio.run(self.embed([TEXTS[0]], "text"))
                return
            except (OSError, asyncio.IncompleteReadError, KeyError, ValueError) as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{self.name} did not start: {error}") from error
                time.sleep(1)

    def request(self, items: list[str], modality: str) -> bytes:
        body = json.dumps({"model": "b16", "input": items, "modality": modality}).encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def embed(self, items: list[str], modality: str) -> np.ndarray:
        """(n, width), of unit norm."""
        answer = json.loads(await _raw(self.port, self.request(items, modality)))
        z = np.array([row["embedding"] for row in answer["data"]])
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    async def rate(self, requests: list[bytes], count: int) -> float:
        """Requests a second of clients that each wait for their answer."""
        numbers = iter(range(count))

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for number in numbers:
                writer.write(requests[number % len(requests)])
                status, _ = await _read(reader)
                assert status == 200, (self.name, status)
            writer.close()

        begun = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--infinity", required=True, help="the program infinity_emb")
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--images", type=int, default=96, help="of a round")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        ours, theirs = f"{parent}/b16", f"{parent}/hf"
        folder = Path(__file__).parent
        subprocess.run([sys.executable, "-c", MODEL, ours], cwd=folder, check=True)
        Path(ours, "tokenizer.model").write_bytes(Path(given.vocabulary).read_bytes())
        ours_command = [sys.executable, "-P", "-m", "siglip_jax"]
        convert = [*ours_command, "convert", ours, theirs, "--to", "transformers", "--quiet"]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
        serve = [*ours_command, "serve", "--model", f"b16={ours}", "--port", 8191, "--log"]
        infinity = [given.infinity, "v2", "--model-id", theirs, "--served-model-name", "b16"]
        infinity += ["--device", "cpu", "--dtype", "float32", "--engine", "torch", "--port", 8192]
        peers = [
            Peer("siglip-jax", "/v1/embeddings", 8191, [*serve, os.devnull]),
            Peer("infinity", "/embeddings", 8192, infinity),
        ]
        try:
            for peer in peers:
                peer.wait()
            asyncio.run(compare(peers, given.images))
        finally:
            for peer in peers:
                peer.process.kill()


async def compare(peers: list[Peer], count: int) -> None:
    files = photographs(32, 640, 480)
    uris = ["data:image/jpeg;base64," + base64.b64encode(file).decode() for file in files]
    requests: dict[str, list[bytes]] = {
        peer.name: [peer.request([uri], "image") for uri in uris] for peer in peers
    }
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for round_ in range(ROUNDS + 1):
        for peer in peers:
            rate = await peer.rate(requests[peer.name], count if round_ else CLIENTS)
            if round_:  # the first warms up
                rates[peer.name].append(rate)
    own, other = rates.values()
    shares = [mine / its for mine, its in zip(own, other, strict=True)]
    for peer in peers:
        print(f"throughput: {peer.name} {statistics.median(rates[peer.name]):.2f} images/s")
    print(
        f"siglip-jax over infinity: {statistics.median(shares):.2f} "
        f"({min(shares):.2f} to {max(shares):.2f})"
    )
    zs: list[Any] = [np.concatenate([await p.embed([u], "image") for u in uris]) for p in peers]
    print(f"images: largest difference {np.abs(zs[0] - zs[1]).max():.2g}")
    for peer in peers:
        alone = (await peer.embed(TEXTS[:1], "text"))[0]
        beside = (await peer.embed(TEXTS, "text"))[0]
        print(
            f"texts: {peer.name}: {TEXTS[0]!r} alone and beside a longer text: cosine "
            f"{alone @ beside:.6f}, largest difference {np.abs(alone - beside).max():.2g}"
        )


if __name__ == "__main__":
    main()
