"""When this VM was started, as far as its kernel knows."""

from __future__ import annotations

import os
import time
from pathlib import Path


def started() -> float:
    """Seconds since 1970 at which process 1 began: the VM's boot, or its container's start."""
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the machine's boot
    return time.time() - (uptime - began)
