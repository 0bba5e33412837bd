"""Everything that only an accelerator can tell, in eight minutes.

    python benchmarks/gpu OUT [--only PART ...] [--cases NAME ...] [--minutes M] [--rehearse]

Runs each part of `declared.PARTS` in a process of its own, and writes what they found to OUT:
one JSON file, one table, one log. Exits with 1 if a check failed. See README.md beside this.
"""

import argparse
import datetime
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from declared import PARTS  # noqa: E402
from environment import environment  # noqa: E402
from machine import missing  # noqa: E402
from report import Found, failures, merged, table  # noqa: E402
from schedule import Schedule  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("out", type=Path, help="folder for the results; made if need be")
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument(
        "--cases", nargs="+", default=(), metavar="NAME", help="towers to time, as B/16-224"
    )
    parser.add_argument("--minutes", type=float, help="until all is over (7.6; rehearsing 20)")
    parser.add_argument("--rehearse", action="store_true", help="every part on a CPU, tiny")
    parser.add_argument("--tpu", action="store_true", help="a TPU: one process at a time has it")
    args = parser.parse_args()
    if not args.rehearse and (reason := missing("tpu" if args.tpu else "gpu")):
        parser.error(f"{reason}; --rehearse runs every part on a CPU")
    return args


def main() -> int:
    args = arguments()
    started = time.time()
    date = datetime.date.today().isoformat()
    chosen = [part for part in PARTS if args.only is None or part.name in args.only]
    args.out.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory(prefix="gpu-") as temporary:
        scratch = Path(temporary)
        os.environ.update(environment(scratch))
        if args.rehearse:
            os.environ["JAX_PLATFORMS"] = "cpu"
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
            # Tiny models run faster than they compile.
            os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        platform = "tpu" if args.tpu else "cpu" if args.rehearse else "gpu"

        def result() -> Found:
            return merged(scratch, chosen, platform, date, time.time() - started)

        schedule = Schedule(
            scratch,
            until=started + 60 * (args.minutes or (20 if args.rehearse else 7.6)),
            at_once=max(2, (cores or 2) // 3),
            platform=platform,
            rehearse=args.rehearse,
            # A rehearsal tells nothing of time, and may share its machine.
            slack=10 if args.rehearse else 1,
            report=lambda: result().keep(args.out),
            cases=args.cases,
        )
        try:
            schedule.run(chosen)
        finally:
            found = result()
            lines = table(found)
            found.write(args.out, lines)
    print("\n".join(lines))
    return int(bool(failures(found.rows)))


if __name__ == "__main__":
    raise SystemExit(main())
