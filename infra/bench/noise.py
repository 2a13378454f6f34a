"""`python -m infra.bench.noise KIND`: a trainer that prints without end, and that no notice stops.

KIND: `silence`, `lines` (a million a second, of 20 bytes), `no_end` (one line, as many bytes a second), `progress` (a
progress bar, a million states a second).
"""

from __future__ import annotations

import os
import signal
import sys
import time

PER_S = 1_000_000
_EVERY_S = 0.01
_ENDS = {"lines": b"\n", "no_end": b".", "progress": b"\r"}


def piece(kind: str, count: int) -> bytes:
    """So many lines, states or parts of a line."""
    return (b"step 400 loss=2.311" + _ENDS[kind]) * count


def main() -> None:
    kind = sys.argv[1]
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if kind == "silence":
        while True:
            time.sleep(3600.0)
    due = time.monotonic()
    block = piece(kind, round(PER_S * _EVERY_S))
    while True:
        left = memoryview(block)
        while left:
            left = left[os.write(1, left) :]
        due = max(due + _EVERY_S, time.monotonic() - 1.0)  # a second's worth is made up for, not more
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
