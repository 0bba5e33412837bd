"""The C allocator of this process, told to keep what is freed.

glibc gives large blocks back to the system when they are freed and asks for them again,
page by page, when they are next needed. A compiled function on a CPU frees all of its
temporaries at its end, so that each call would pay for every page it touches.
"""

import ctypes
import sys

# glibc's mallopt(3). Setting one also stops glibc from moving the others by itself.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """From now on this process keeps memory that is freed, up to 2 GiB a block, for later.

    The commands that run a model call it. Call it in your own process, before the first batch, if
    it embeds on a CPU and nothing else needs the memory in between. The same without code:

        MALLOC_MMAP_THRESHOLD_=2147483647 MALLOC_TRIM_THRESHOLD_=2147483647 python ...

    Returns whether it could be done: it is glibc's alone, and elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {
        _M_MMAP_THRESHOLD: _LARGEST,
        _M_TRIM_THRESHOLD: _LARGEST,
        _M_TOP_PAD: 64 << 20,  # grow in steps that are not felt
    }
    return all(mallopt(option, value) == 1 for option, value in settings.items())
