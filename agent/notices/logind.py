"""logind's `PrepareForShutdown` as a notice, and the delay inhibitor that holds the shutdown while a save runs.

It comes before systemd stops a single unit, so it is earlier than SIGTERM on an ACPI power button (the facts on
systemd on the VM). While there is no system bus, in a container say, SIGTERM and the metadata server remain, and the
bus is looked for again. Importing this module costs 3 MB: do it where it is used.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError, InvalidAddressError

from agent.notices import Notices

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
_BUS = "org.freedesktop.DBus"
_RULES = (
    f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='PrepareForShutdown'",
    f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{NAME}'",
)
_PAUSE_S = (0.5, 60.0)

_TROUBLE = (OSError, EOFError, TimeoutError, DBusError, AuthError, InvalidAddressError)

log = structlog.get_logger()


class Logind:
    """Call `start()` once at the agent's start and `release()` when the state is safe.

    `address` is the bus's (default: the system bus); `deadline` bounds each exchange with it, in seconds.
    """

    def __init__(
        self,
        notices: Notices,
        *,
        address: str | None = None,
        deadline: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._notices = notices
        self._address = address
        self._deadline = deadline
        self._sleep = sleep
        self._bus: MessageBus | None = None
        self._inhibitor: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def holding(self) -> bool:
        """Whether we hold the shutdown back."""
        return self._inhibitor is not None

    async def start(self) -> bool:
        """Listen and take the inhibitor. False, said once in the journal, where there is no logind to talk to: it is
        looked for until `close`, and so it is when it is lost."""
        try:
            await self._connect()
        except _TROUBLE as error:
            log.info(
                "logind_absent",
                reason=_reason(error),
                message="no logind on the system bus: the metadata server and SIGTERM remain; it is looked for again",
            )
        self._spawn(self._keep())
        return self._bus is not None

    def release(self) -> None:
        """Let the shutdown go on. Calling it again is fine."""
        if self._inhibitor is not None:
            os.close(self._inhibitor)
            self._inhibitor = None

    async def close(self) -> None:
        """Release, and leave the bus."""
        for task in tuple(self._tasks):
            task.cancel()
        self._leave()

    async def _keep(self) -> None:
        """Wait until the bus is lost, and for the next one, for ever."""
        while True:
            away_since = time.monotonic()
            if self._bus is not None:
                reason = await _lost(self._bus)
                away_since = time.monotonic()
                self._leave()
                log.warning(
                    "logind_lost",
                    reason=reason,
                    message="lost the system bus: the metadata server and SIGTERM remain; it is looked for again",
                )
            pause, longest = _PAUSE_S
            while self._bus is None:
                await self._sleep(pause * random.uniform(0.7, 1.0))  # noqa: S311 - jitter, no secret
                pause = min(longest, 2 * pause)
                try:
                    await self._connect()
                except _TROUBLE:
                    continue  # said already
                log.info("logind_back", seconds=round(time.monotonic() - away_since, 1))

    async def _connect(self) -> None:
        """First the ear, then the brake: a shutdown in between is heard, and so is one that began before."""
        try:
            async with asyncio.timeout(self._deadline):
                self._bus = await MessageBus(self._address, BusType.SYSTEM, negotiate_unix_fd=True).connect()
                self._bus.add_message_handler(self._heard)
                for rule in _RULES:
                    await self._call(_BUS, "/org/freedesktop/DBus", f"{_BUS}.AddMatch", "s", [rule])
                if await self._is_shutting_down():
                    self._notices.post("logind", "operator_stop", "PreparingForShutdown")
                else:
                    await self._inhibit()
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        self.release()
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    async def _is_shutting_down(self) -> bool:
        asked = [MANAGER, "PreparingForShutdown"]
        reply = await self._call(NAME, PATH, f"{_BUS}.Properties.Get", "ss", asked)
        return bool(reply.body[0].value)

    async def _inhibit(self) -> None:
        why = "a checkpoint is being brought to Cloud Storage"
        reply = await self._call(NAME, PATH, f"{MANAGER}.Inhibit", "ssss", ["shutdown", "spot-agent", why, "delay"])
        self.release()
        self._inhibitor = reply.unix_fds[reply.body[0]]

    async def _call(self, name: str, path: str, method: str, signature: str, body: list[Any]) -> Message:
        if self._bus is None:
            raise EOFError("no bus")
        interface, _, member = method.rpartition(".")
        reply = await self._bus.call(Message(name, path, interface, member, signature=signature, body=body))
        if reply is None:
            raise EOFError("the bus hung up")
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name or "unknown", " ".join(map(str, reply.body)))
        return reply

    def _heard(self, message: Message) -> None:
        if (message.interface, message.member) == (_BUS, "NameOwnerChanged"):
            if message.body[0] == NAME and message.body[2]:  # logind was started again, and may not know our inhibitor
                self._spawn(self._inhibit_again())
        elif (message.interface, message.member, message.path) == (MANAGER, "PrepareForShutdown", PATH):
            if message.body[0]:
                self._notices.post("logind", "operator_stop", "PrepareForShutdown")
            else:
                log.info("shutdown_cancelled", message="logind cancelled the shutdown")
                if not self.holding:
                    self._spawn(self._inhibit_again())

    async def _inhibit_again(self) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                await self._inhibit()
        except _TROUBLE as error:
            log.warning("inhibitor_lost", reason=_reason(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _lost(bus: MessageBus) -> str:
    """Waits until `bus` is lost; returns why."""
    try:
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - whatever ended it, the news is the same
        return _reason(error)
    return "disconnected"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
