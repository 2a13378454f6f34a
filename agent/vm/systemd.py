"""What the agent tells systemd: that it is ready, what it does, that it lives, that it stops.

Without systemd (`NOTIFY_SOCKET` unset) everything here does nothing. The protocol is sd_notify's: datagrams of
`NAME=value` lines to a unix socket. It never waits and never raises: systemd draws its own conclusions from silence.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM")
_STATUS_S = 5.0


def is_under_systemd() -> bool:
    """Whether systemd started this process as a unit of `Type=notify`."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify(**states: object) -> bool:
    """Tell systemd, as in `notify(ready=1, status="training")`. False where nobody listens, or can just now."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    text = "\n".join(f"{name.upper()}={str(value).replace(chr(10), ' ')}" for name, value in states.items())
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        channel.sendto(text.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        return True
    return False


def watchdog_s(environment: Mapping[str, str] | None = None, *, pid: int | None = None) -> float | None:
    """Seconds that systemd waits for a sign of life (`WatchdogSec=`); None where it waits for none, or not for us."""
    found = os.environ if environment is None else environment
    if found.get("WATCHDOG_PID", str(pid or os.getpid())) != str(pid or os.getpid()):
        return None
    usec = found.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isdigit() and int(usec) else None


async def report(alive: Callable[[], bool], status: Callable[[], str]) -> None:
    """Feed the watchdog from this event loop while `alive()`, and keep `systemctl status`'s line true.

    A loop that is stuck, or whose watchers are dead (`alive` says no), is not fed: systemd aborts the agent, the
    journal gets every thread's stack, and the agent that is started next adopts the trainer.
    """
    if not is_under_systemd():
        return
    faulthandler.enable()
    limit = watchdog_s()
    pause = min(_STATUS_S, limit / 4) if limit else _STATUS_S
    told = ""
    while True:
        now = status()
        states: dict[str, object] = {"status": now} if now != told else {}
        if alive():
            states["watchdog"] = 1
        if states and notify(**states):
            told = now
        await asyncio.sleep(pause)


@asynccontextmanager
async def fed(status: str) -> AsyncIterator[None]:
    """The watchdog is fed while the last things are done, which have deadlines of their own, and longer ones."""
    feeding = asyncio.create_task(report(lambda: True, lambda: status))
    try:
        yield
    finally:
        feeding.cancel()


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what systemd meant for the agent alone."""
    return {name: value for name, value in environment.items() if name not in _OWN}
