"""A small suite, killed as by kill -9 at the n-th rename or sync, in one forked process each.

    python killed_suites.py MODEL DATA OUT 2,5,9

The last one is let live. Prints the exit code of each, or less the number of its signal.
"""

import os
import sys

import killed_at
from suite_folders import tiny

import siglip_jax
from siglip_jax.suites import run_suite

model, data, out, kills = sys.argv[1:]
for kill in [*map(int, kills.split(",")), 0]:
    # Nothing has run on a device yet: jax has no threads that a child would miss.
    child = os.fork()
    if child == 0:
        loaded = siglip_jax.load(model)
        killed_at.arm(kill)
        result = run_suite(tiny("tars", "captions"), data, out, model=loaded)
        os._exit(result.code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
