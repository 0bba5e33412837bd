"""Cases of one format, in this process: python fuzz_worker.py FORMAT FIRST LAST SECONDS

Prints the number of each case before it runs, and `FAIL number what` where the outcome is
neither success nor one line. A case has 20 s and 1 GB beyond what the process had before; it
ends the process if it starts another program, opens a connection or unpickles a name.
"""

import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

SECONDS, MEMORY = 20, 1 << 30
_REFUSED = ("os.system", "os.exec", "os.spawn", "socket.connect",
            "pickle.find_class", "ctypes.dlopen", "pty.spawn")  # fmt: skip


def watch():
    """From now on no case does anything but read."""

    def hook(event, arguments):
        # From Python 3.13 on subprocess starts what it starts by posix_spawn.
        starts = event in ("subprocess.Popen", "os.posix_spawn")
        ours = starts and "siglip_jax.preprocessing.decode_server" in str(arguments[1])
        if (starts or event in _REFUSED) and not ours:
            print(f"FAIL {hook.case} it did {event} {str(arguments)[:200]}", flush=True)
            os._exit(99)

    hook.case = -1
    sys.addaudithook(hook)
    return hook


def memory_limit():
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.RLIM_INFINITY))


def outcome(read, at):
    """None, or what is wrong with how it ended."""
    try:
        read(at)
    except (ValueError, OSError) as error:
        if isinstance(error, UnicodeError):
            return f"{type(error).__name__}: {error}"
    except BaseException:
        return traceback.format_exc().strip().replace("\n", " | ")[-800:]
    return None


def main(name, first, last, seconds):
    from fuzz_formats import FORMATS
    from fuzz_mutations import damaged, generator

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        good, bad = Path(folder, "good"), Path(folder, "bad")
        good.mkdir()
        cases = list(FORMATS[name](good))
        for case in cases:  # what is imported and started on the way is there before the limits
            case_outcome = outcome(case.read, good)
            if case_outcome:
                print(f"FAIL -1 the good file: {case_outcome}", flush=True)
        hook = watch()
        memory_limit()
        begun = time.monotonic()
        for number in range(first, last):
            if time.monotonic() - begun > seconds:
                break
            print(number, flush=True)
            hook.case = number
            rng = generator(name, number)
            case = cases[number % len(cases)]
            shutil.copytree(good, bad)
            data = damaged((good / case.file).read_bytes(), case.kind, rng)
            (bad / case.file).write_bytes(data)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            with contextlib.redirect_stdout(sys.stderr):
                wrong = outcome(case.read, bad)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if wrong:
                print(f"FAIL {number} {wrong}", flush=True)
            shutil.rmtree(bad)
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
