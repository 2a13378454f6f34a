"""Memory as a VM of ours has it: given by the host, and in huge pages.

Many hypervisors take a VM's free memory back within seconds, and return it at the next touch at a fraction of a GB a
second. What has to be new in a try would then measure the host, and how long ago who freed what.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spot_training.protocol.arena import Arena

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


def touch_memory(size: int) -> float:
    """Take `size` bytes as an arena, touch them, and free them again for whoever asks next. Returns GB a second."""
    arena = Arena.create(size)
    begun = time.monotonic()
    arena.prefault()
    took = time.monotonic() - begun
    arena.close()
    return size / 1e9 / took


def huge_pages_allowed() -> bool:
    """Whether shared memory that asks for it has huge pages."""
    return _setting() in ("advise", "within_size", "always", "force")


@contextmanager
def huge_pages() -> Iterator[None]:
    """Allow them where root may, as systemd/install.sh does on a VM; at the end all is as before.

    An arena of 1 GB is then there in a tenth of the time.
    """
    before = _setting()
    if before == "never" and os.access(HUGE_PAGES, os.W_OK):
        HUGE_PAGES.write_text("advise")
    try:
        yield
    finally:
        if before != _setting():
            HUGE_PAGES.write_text(before)


def _setting() -> str:
    return HUGE_PAGES.read_text().partition("[")[2].partition("]")[0] if HUGE_PAGES.exists() else ""
