"""How an agent makes way for its successor while its trainer trains on: `systemctl reload spot-agent`, which is SIGHUP.

What is staged is committed first; then this process ends as abruptly as in a crash, which is the one ending that leaves
the trainer alone. systemd starts the installed version, and that adopts the trainer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import structlog

from agent.run.daemon import Daemon
from agent.vm.systemd import is_under_systemd, notify

if TYPE_CHECKING:
    from agent.telemetry.cloud_log import CloudLog

log = structlog.get_logger()

EXIT_HANDED_OVER = 75  # RestartForceExitStatus= in systemd/spot-agent.service
_SETTLE_S = 60.0
_LAST_WORDS_S = 5.0


@contextlib.contextmanager
def handover_on_hangup(daemon: Daemon, sender: CloudLog | None) -> Iterator[None]:
    """While the block runs, SIGHUP hands over. Only under systemd, which starts the successor; main thread only."""
    if not is_under_systemd():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: daemon.spawn(hand_over(daemon, sender)))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def hand_over(daemon: Daemon, sender: CloudLog | None) -> None:
    """Commit what is staged, then exit for the successor. Does nothing in the window: there is no time for that."""
    if daemon.window:
        log.warning("handover_refused", message="a notice has come: this agent stays until the state is safe")
        return
    log.info(
        "handover",
        step=daemon.attempt.progress.step if daemon.attempt else None,
        message="making way for the installed version; the trainer goes on",
    )
    await daemon.host.saver.settle(timeout=_SETTLE_S)
    if sender:
        await sender.send_last(_LAST_WORDS_S)
    if not daemon.window:
        notify(status="handed over")
        os._exit(EXIT_HANDED_OVER)
