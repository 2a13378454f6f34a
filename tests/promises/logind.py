"""A power button as a VM has it: a message bus, a logind on it that waits for who holds it back, then SIGTERM.

The bus is dbus-daemon itself. logind's part is played here over its own protocol: `Inhibit` hands out a descriptor,
`PrepareForShutdown` tells everybody, and the shutdown goes on when the last copy of the descriptors is closed, or after
InhibitDelayMaxSec. logind and systemd themselves are in tests/vm.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from dbus_fast.aio import MessageBus
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

from agent.notices.logind import MANAGER, NAME, PATH

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_type="signal"/><allow own="*"/>
<allow receive_requested_reply="true"/></policy></busconfig>"""
_CALL_S = 10.0
_SENT_S = 0.2
_POLL_S = 0.01


class _Manager(ServiceInterface):
    """org.freedesktop.login1.Manager, as much of it as a shutdown needs."""

    def __init__(self) -> None:
        super().__init__(MANAGER)
        self.readers: list[int] = []  # each is at its end when its inhibitor is let go
        self.preparing = False

    @dbus_method()
    def Inhibit(self, what: "s", who: "s", why: "s", mode: "s") -> "h":  # type: ignore[name-defined] # noqa: F821, UP037, N802
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        if what == "shutdown" and mode == "delay":
            self.readers.append(reader)
        asyncio.get_running_loop().call_later(_SENT_S, os.close, writer)  # sent by then: keep no copy
        return writer

    @dbus_property(access=PropertyAccess.READ)
    def PreparingForShutdown(self) -> "b":  # type: ignore[name-defined] # noqa: F821, UP037, N802
        return self.preparing

    @dbus_signal()
    def PrepareForShutdown(self, start) -> "b":  # type: ignore[no-untyped-def,name-defined] # noqa: F821, UP037, N802
        return start

    def held(self) -> bool:
        for reader in [*self.readers]:
            with contextlib.suppress(BlockingIOError):
                if os.read(reader, 1) == b"":
                    self.readers.remove(reader)
                    os.close(reader)
        return bool(self.readers)


class PowerButton:
    """`address` is the bus's, for DBUS_SYSTEM_BUS_ADDRESS."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._loop = asyncio.new_event_loop()
        self._manager = _Manager()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def press(self, stop: Callable[[], object], *, delay_max_s: float) -> None:
        """Returns at once; `stop` is what systemd does about its units when logind lets it."""
        asyncio.run_coroutine_threadsafe(self._shut_down(stop, delay_max_s), self._loop)

    async def _shut_down(self, stop: Callable[[], object], delay_max_s: float) -> None:
        self._manager.preparing = True
        self._manager.PrepareForShutdown(True)
        end = self._loop.time() + delay_max_s
        while self._manager.held() and self._loop.time() < end:  # noqa: ASYNC110 - what changes is who has a pipe open
            await asyncio.sleep(_POLL_S)
        stop()
        self._manager.preparing = False  # the next VM is another machine

    async def _serve(self) -> MessageBus:
        bus = await MessageBus(self.address, negotiate_unix_fd=True).connect()
        bus.export(PATH, self._manager)
        await bus.request_name(NAME)
        return bus

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        self._thread.start()
        bus = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(_CALL_S)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(bus.disconnect)
            self._loop.call_soon_threadsafe(self._loop.call_later, _POLL_S, self._loop.stop)
            self._thread.join(_CALL_S)


@contextlib.contextmanager
def power_button(folder: Path) -> Iterator[PowerButton | None]:
    """A bus of its own, with a logind on it; None where there is no dbus-daemon."""
    if shutil.which("dbus-daemon") is None:
        yield None
        return
    config = folder / "bus.conf"
    config.write_text(CONFIG.format(socket=folder / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            button = PowerButton(daemon.stdout.readline().strip())  # printed once it listens
            with button.serving():
                yield button
        finally:
            daemon.kill()
