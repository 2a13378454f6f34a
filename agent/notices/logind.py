"""logind's `PrepareForShutdown` as a notice, and the delay inhibitor that holds the shutdown while a save runs.

It comes before systemd stops a single unit, so it is earlier than SIGTERM on an ACPI power button (the facts on
systemd on the VM). Without a system bus, in a container say, SIGTERM and the metadata server remain. Importing this
module costs 3 MB: do it where it is used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import structlog
from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError

from agent.notices import Notices

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
_RULE = f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='PrepareForShutdown'"

_TROUBLE = (OSError, EOFError, TimeoutError, DBusError, AuthError)

log = structlog.get_logger()


class Logind:
    """Call `start()` once at the agent's start and `release()` when the state is safe.

    `address` is the bus's (default: the system bus); `deadline` bounds each exchange with it, in seconds.
    """

    def __init__(self, notices: Notices, *, address: str | None = None, deadline: float = 5.0) -> None:
        self._notices = notices
        self._address = address
        self._deadline = deadline
        self._bus: MessageBus | None = None
        self._inhibitor: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def holding(self) -> bool:
        """Whether we hold the shutdown back."""
        return self._inhibitor is not None

    async def start(self) -> bool:
        """Listen and take the inhibitor. False, said once in the journal, where there is no logind to talk to."""
        try:
            async with asyncio.timeout(self._deadline):
                self._bus = await MessageBus(self._address, BusType.SYSTEM, negotiate_unix_fd=True).connect()
                # First the ear, then the brake: a shutdown in between is heard.
                self._bus.add_message_handler(self._heard)
                await self._call("org.freedesktop.DBus", "/org/freedesktop/DBus", "AddMatch", "s", [_RULE])
                await self._inhibit()
        except _TROUBLE as error:
            log.info(
                "logind_absent",
                reason=str(error) or type(error).__name__,
                message="no logind on the system bus: going on with the metadata server and SIGTERM alone",
            )
            await self.close()
            return False
        self._spawn(self._tell_when_lost(self._bus))
        return True

    def release(self) -> None:
        """Let the shutdown go on. Calling it again is fine."""
        if self._inhibitor is not None:
            os.close(self._inhibitor)
            self._inhibitor = None

    async def close(self) -> None:
        """Release, and leave the bus."""
        self.release()
        for task in tuple(self._tasks):
            task.cancel()
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    async def _inhibit(self) -> None:
        why = "a checkpoint is being brought to Cloud Storage"
        reply = await self._call(NAME, PATH, "Inhibit", "ssss", ["shutdown", "spot-agent", why, "delay"])
        self._inhibitor = reply.unix_fds[reply.body[0]]

    async def _call(self, name: str, path: str, member: str, signature: str, body: list[Any]) -> Message:
        assert self._bus is not None
        interface = MANAGER if name == NAME else name
        reply = await self._bus.call(Message(name, path, interface, member, signature=signature, body=body))
        if reply is None:
            raise EOFError("the bus hung up")
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name or "unknown", " ".join(map(str, reply.body)))
        return reply

    def _heard(self, message: Message) -> None:
        if (message.interface, message.member, message.path) != (MANAGER, "PrepareForShutdown", PATH):
            return
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
            log.warning("inhibitor_lost", reason=str(error) or type(error).__name__)

    async def _tell_when_lost(self, bus: MessageBus) -> None:
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - whatever ended it, the news is the same
            reason = str(error) or type(error).__name__
        else:
            reason = "disconnected"
        self.release()
        log.warning(
            "logind_lost",
            reason=reason,
            message="lost the system bus: going on with the metadata server and SIGTERM alone",
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
