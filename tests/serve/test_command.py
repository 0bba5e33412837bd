"""`siglip-jax serve` as a process."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from emoji_pictures import PICTURES, as_base64

from siglip_jax.cli.main import main

BODY = json.dumps({"input": as_base64(PICTURES[5]), "labels": ["a brown circle"]}).encode()


class Started:
    """A server, once it is ready; `stderr` afterwards."""

    def __init__(self, home, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "siglip_jax", "serve", "--port", "0", "--quiet", *options],
            env=os.environ | {"SIGLIP_JAX_HOME": str(home), "XLA_FLAGS": ""},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        found = re.search(r"ready at (http://\S+)", self.process.stdout.readline())
        assert found, self.process.communicate()[1]
        self.url = found[1]

    def ask(self, path="/v1/classify", data=BODY, **headers):
        request = urllib.request.Request(
            self.url + path, data, {"content-type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, self.stderr = self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.mark.slow
def test_it_answers_writes_a_line_a_request_and_ends_in_order(home, scorer, tmp_path):
    log = tmp_path / "requests.jsonl"
    started = Started(home, "--log", str(log))
    status, answer = started.ask(**{"x-request-id": "abc"})
    expected = scorer.score([PICTURES[5]], ["a brown circle"]).logits[0, 0]
    assert status == 200
    assert answer["model"] == "siglip_emoji"
    assert answer["data"][0]["scores"][0]["logit"] == pytest.approx(float(expected), abs=1e-5)
    assert started.end() == 0
    (line,) = map(json.loads, log.read_text().splitlines())
    assert (line["id"], line["status"], line["images"], line["texts"]) == ("abc", 200, 1, 1)
    assert "what was accepted is answered" in started.stderr


@pytest.mark.slow
def test_keys_of_the_environment(home, monkeypatch):
    monkeypatch.setenv("SIGLIP_JAX_API_KEYS", "secret-1")
    started = Started(home)
    status, answer = started.ask()
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert started.ask(authorization="Bearer secret-1")[0] == 200
    assert started.ask("/health", None)[0] == 200
    assert started.end(signal.SIGINT) == 0
    assert "secret-1" not in started.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "expected a port from 0 to 65535, got '70000'"),
        (["--timeout", "0"], "expected seconds, more than 0"),
        (["--model", "siglip_emojy"], "did you mean siglip_emoji?"),
        (["--model", "=siglip_emoji"], "expected NAME=MODEL"),
        (["--model", "a=siglip_emoji", "--model", "a=siglip_emoji"], "two models are called a"),
        (["--keys", "no.txt"], "no.txt"),
        (["--fetch", "https://example.com/"], "is no host name"),
        (["--index", "no_index"], "no_index"),
        (["--calibration", "no.json"], "no.json"),
        (["--threshold", "f1"], "give --calibration FILE"),
        (["--host", "no.such.host.invalid"], "cannot listen on port 0"),
        (["--log", "no/such/folder/log"], "no/such/folder/log"),
    ],
)
def test_bad_options_are_one_line(capsys, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["serve", "--port", "0", *options])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("siglip-jax")
    assert "error: " in line
    assert said in line


def test_what_is_not_installed_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "uvicorn is not installed, and siglip-jax serve needs it; pip install" in line
