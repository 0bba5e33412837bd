"""One contestant in a process of its own, told what to do by lines of JSON.

    python worker.py SYSTEM CASE OPTIONS

SYSTEM is siglip_jax, timm, open_clip or transformers; CASE and OPTIONS (of `Execution`) are
JSON. It answers each line on its standard input with one on its standard output:

    {"do": "prepare", "batch": 256}  {"compile_seconds": 21.3, "temporary": 812000000}
    {"do": "time", "batch": 256, "seconds": 0.6}  {"rate": 12000.0, "steps": 28}
    {"do": "latency", "count": 20}  {"latencies": [0.0018, ...]}
    {"do": "embed", "batch": 4, "save": "z.npy"}  {}
    {"do": "release"}  {"peak": 9120000000}

A request that fails is answered {"failed": "RuntimeError: ..."}, and the next one is served.
"""

import json
import sys
import time
import traceback
from typing import Any

import numpy as np
from results import one_line
from sizes import Case


def contestant(system: str, case: Case, options: dict[str, Any]) -> Any:
    if system == "siglip_jax":
        from ours import Ours, OurTraining

        return (OurTraining if case.tower == "training" else Ours)(case, options)
    if case.tower == "training":
        from their_training import TheirTraining

        return TheirTraining(case)
    from theirs import Theirs

    return Theirs(system, case)


def answer(system: Any, request: dict[str, Any]) -> dict[str, Any]:
    batch = request.get("batch", 1)
    if request["do"] == "prepare":
        return system.prepare(batch)
    if request["do"] == "time":
        return timed(system, batch, request["seconds"])
    if request["do"] == "latency":
        system.run(1, 3)
        return {"latencies": [seconds_of(system, 1, 1) for _ in range(request["count"])]}
    if request["do"] == "embed":
        np.save(request["save"], system.embed(batch))
        return {}
    system.release()
    return {"peak": system.memory()}


def timed(system: Any, batch: int, seconds: float) -> dict[str, Any]:
    """Items a second of at least three batches that take about `seconds`."""
    system.run(batch, 1)
    one = seconds_of(system, batch, 1)
    count = max(3, round(seconds / one))
    spent = seconds_of(system, batch, count)
    return {"rate": batch * count / spent, "steps": count}


def seconds_of(system: Any, batch: int, count: int) -> float:
    start = time.perf_counter()
    system.run(batch, count)
    return time.perf_counter() - start


def main() -> None:
    _, name, case, options = sys.argv
    # What libraries print belongs on stderr: stdout is for answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    plain = json.loads(case)
    system: Any = None
    for line in sys.stdin:
        try:
            if system is None:
                system = contestant(
                    name, Case(**plain | {"batches": tuple(plain["batches"])}), json.loads(options)
                )
            reply = answer(system, json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"failed": one_line(error)}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
