"""One part in this process: `python part.py NAME ROWS UNTIL --platform PLATFORM ...`.

What it finds is in its rows; the exit code says only whether it came to its end.
"""

import argparse
import dataclasses
import importlib
import traceback
from pathlib import Path

from results import Results, one_line
from sizes import FULL, REHEARSAL

# What a part may do without; everything else that is missing is a failure.
OPTIONAL = ("grain", "optax", "orbax", "pyarrow", "pytest", "sentencepiece")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("rows", type=Path)
    parser.add_argument("until", type=float)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--platform", required=True)
    parser.add_argument("--prepared-by", type=float)
    parser.add_argument("--gate", type=Path)
    parser.add_argument("--cases", nargs="+", default=())
    args = parser.parse_args()
    scale = REHEARSAL if args.rehearse else FULL
    names = [case.name for case in scale.cases]
    unknown = [name for name in args.cases if name not in names]
    if args.cases:
        some = tuple(case for case in scale.cases if case.name in args.cases)
        compared = tuple(case.model for case in some if case.model in scale.conformance)
        scale = dataclasses.replace(scale, cases=some, conformance=compared, goldens=0)
    results = Results(
        args.name,
        args.rows,
        args.until,
        scale,
        platform=args.platform,
        prepared_by=args.prepared_by,
        gate=args.gate,
    )
    if unknown:
        results.failed(args.name, f"no case is named {unknown[0]!r}; there are {', '.join(names)}")
        return
    try:
        importlib.import_module(f"parts.{args.name}").run(results)
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, ModuleNotFoundError) and error.name.split(".")[0] in OPTIONAL:
            results.skipped(args.name, f"{error.name} is not installed")
        else:
            results.failed(args.name, one_line(error))


if __name__ == "__main__":
    main()
