"""`siglip-jax` in a process that ends, or slows down, where a test wants it to.

KILL_AT=n: kills itself, as kill -9 does, before the n-th time that something is renamed or
is to be on the disk. KILL_PUT=n: before the n-th time that a put to a bucket begins or has
ended. SLOW=s: seconds that every picture takes. PATIENCE=s: of claims.
"""

import os
import sys
import time

import killed_at

killed_at.arm(int(os.environ.get("KILL_AT", "0")))

from siglip_jax.cli.distributed import finish  # noqa: E402
from siglip_jax.cli.ending import leave  # noqa: E402
from siglip_jax.cli.main import main  # noqa: E402
from siglip_jax.jobs import bucket, run  # noqa: E402
from siglip_jax.scoring.preparation import Preparer  # noqa: E402

prepare = Preparer.__call__


def slow(self, item):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return prepare(self, item)


Preparer.__call__ = slow
if "KILL_PUT" in os.environ:
    killed_at.arm(int(os.environ["KILL_PUT"]))
    put, tick = bucket.BucketPath._put, killed_at.counted(lambda: None)

    def counted(self, action):
        tick()
        answer = put(self, action)
        tick()
        return answer

    bucket.BucketPath._put = counted
if "PATIENCE" in os.environ:
    # A dataclass keeps the default in its constructor.
    run.Options.__init__.__kwdefaults__["patience"] = float(os.environ["PATIENCE"])
sys.exit(leave(finish(main(sys.argv[1:]))))
