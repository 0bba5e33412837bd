"""Two replicas of the bundled model on a local Ray, one of which is killed; writes what happened.

python ray_replicas.py PICTURE PORT OUT.json
"""

import base64
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import ray
from ray import serve

from siglip_jax.serve.ray import deployment

URL = "http://127.0.0.1:{port}/v1/classify"


@ray.remote(num_cpus=0)
class Killer:
    """On the same node: the processes of replicas are its siblings."""

    def pids(self):
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    command = (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                if command.startswith(b"ray::ServeReplica"):
                    found.append(int(folder.name))
        return found

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)


def ask(body, port):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(URL.format(port=port), body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["data"][0]["scores"][0]["logit"]
    except urllib.error.HTTPError as error:
        return error.code, None


def main():
    picture = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
    body = json.dumps({"input": picture, "labels": ["a brown circle"]}).encode()
    port = int(sys.argv[2])
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": port, "host": "127.0.0.1"})
    options = {"batch_size": 1, "text_batch_size": 1, "workers": 1}
    app = deployment({"emoji": "siglip_emoji"}, replicas=2, actor={"num_cpus": 1}, **options)
    serve.run(app)
    killer = Killer.remote()
    before = ray.get(killer.pids.remote())
    answers = [ask(body, port) for _ in range(8)]
    ray.get(killer.kill.remote(before[0]))
    # One that was on its way to the replica that died may fail; none after it was seen.
    time.sleep(2)
    after = [ask(body, port) for _ in range(8)]
    deadline = time.monotonic() + 240
    while len(now := set(ray.get(killer.pids.remote())) - {before[0]}) < 2:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    found = {"before": len(before), "answers": answers, "after": after, "now": len(now)}
    Path(sys.argv[3]).write_text(json.dumps(found))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
