"""Memory that the host has really given.

Many hypervisors take a VM's free memory back within seconds, and return it at the next touch at a fraction of a GB a
second. What has to be new in a try would then measure the host, and how long ago who freed what.
"""

from __future__ import annotations

import mmap
import time


def touch_memory(size: int) -> float:
    """Take `size` bytes, touch them, and free them again for whoever asks next. Returns GB touched per second."""
    begun = time.monotonic()
    with mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        for start in range(0, len(taken), mmap.PAGESIZE):
            taken[start] = 1
        return len(taken) / 1e9 / (time.monotonic() - begun)
