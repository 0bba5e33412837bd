"""Contestants, each in a process of its own for each case."""

import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from sizes import Case


@dataclasses.dataclass(frozen=True)
class Contestant:
    """`options` are those of `Execution`, for siglip_jax; `environment` is added."""

    name: str
    system: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


class Worker:
    """A contestant's process for one case; see `worker`."""

    def __init__(self, contestant: Contestant, case: Case) -> None:
        self.contestant, self.case = contestant, case
        self.prepared: dict[int, dict[str, Any]] = {}
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("worker.py")),
                contestant.system,
                json.dumps(dataclasses.asdict(case)),
                json.dumps(contestant.options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | contestant.environment,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
          RuntimeError: if the request failed, or the process died or does not answer.
        """
        try:
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=max(0.0, timeout))
        except queue.Empty:
            self.close()
            raise RuntimeError(f"no answer to {request['do']} in {timeout:.0f} s") from None
        except OSError:
            line = ""
        if not line:
            raise RuntimeError(f"its process ended with code {self._process.wait(5)}")
        answer = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
