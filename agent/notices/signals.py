"""SIGTERM and SIGINT as notices: how systemd, a terminal and `kill` say stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from agent.notices import Notices

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def signal_notices(notices: Notices) -> Iterator[None]:
    """While the block runs, each SIGTERM or SIGINT becomes a notice and does nothing else. Main thread only."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, notices.post, "sigterm", "operator_stop", number.name)
    for _ in getattr(before[signal.SIGTERM], "heard", ()):  # while the agent was still being imported: `agent.start`
        notices.post("sigterm", "operator_stop", "SIGTERM, at the start")
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
