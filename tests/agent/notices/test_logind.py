"""What the agent promises of logind, over a real message bus with a login1 service that keeps the real one's contract:
an inhibitor is a file descriptor, and it ends when the last copy is closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal
from structlog.testing import capture_logs

from agent.notices import Notices
from agent.notices.logind import MANAGER, NAME, PATH, Logind

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_type="signal"/><allow own="*"/>
<allow receive_requested_reply="true"/></policy></busconfig>"""


class Login1(ServiceInterface):
    """The part of logind that the agent uses. `reader` turns readable (end of file) when the inhibitor is let go."""

    def __init__(self) -> None:
        super().__init__(MANAGER)
        self.asked: list[tuple[str, str, str, str]] = []
        self.preparing = False
        self.reader = -1

    @dbus_method()
    def Inhibit(self, what: "s", who: "s", why: "s", mode: "s") -> "h":  # type: ignore[name-defined] # noqa: F821, UP037, N802
        self.asked.append((what, who, why, mode))
        self.reader, writer = os.pipe()
        asyncio.get_running_loop().call_later(0.2, os.close, writer)  # sent by then: keep no copy
        return writer

    @dbus_property(access=PropertyAccess.READ)
    def PreparingForShutdown(self) -> "b":  # type: ignore[name-defined] # noqa: F821, UP037, N802
        return self.preparing

    @dbus_signal()
    def PrepareForShutdown(self, start) -> "b":  # type: ignore[no-untyped-def,name-defined] # noqa: F821, UP037, N802
        return start

    async def let_go(self) -> None:
        """Wait until nobody holds the inhibitor."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.reader, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), 10)
            assert os.read(self.reader, 1) == b""
        finally:
            loop.remove_reader(self.reader)
            os.close(self.reader)


@dataclass
class Bus:
    address: str
    daemon: subprocess.Popen[str]


@contextmanager
def running_bus(folder: Path) -> Iterator[Bus]:
    """A message bus that listens at `folder / "bus"`."""
    config = folder / "bus.conf"
    config.write_text(CONFIG.format(socket=folder / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            yield Bus(daemon.stdout.readline().strip(), daemon)  # printed once it listens
        finally:
            daemon.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed (Debian, Ubuntu: apt-get install dbus-daemon)")
    return tmp_path


@pytest.fixture
def bus(folder: Path) -> Iterator[Bus]:
    with running_bus(folder) as bus:
        yield bus


async def soon(_seconds: float) -> None:
    """A pause of no length that matters."""
    await asyncio.sleep(0.005)


async def become(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it is so; the caller's timeout ends it."""
    while not holds():  # noqa: ASYNC110 - what changes is the code under test, which owes us no event
        await asyncio.sleep(0.002)


@asynccontextmanager
async def login1(address: str) -> AsyncIterator[Login1]:
    service = Login1()
    bus = await MessageBus(address, negotiate_unix_fd=True).connect()
    bus.export(PATH, service)
    await bus.request_name(NAME)
    try:
        yield service
    finally:
        bus.disconnect()
        with suppress(EOFError):  # asked for, or asyncio reports it whenever it is garbage, to whatever test runs then
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


def test_prepare_for_shutdown_is_a_notice_and_the_shutdown_waits_for_release(bus: Bus) -> None:
    async def scenario() -> None:
        notices = Notices()
        logind = Logind(notices, address=bus.address)
        async with asyncio.timeout(20), login1(bus.address) as service:
            assert await logind.start()
            assert [(what, mode) for what, _, _, mode in service.asked] == [("shutdown", "delay")]
            service.PrepareForShutdown(True)
            notice = await notices.next()
            assert (notice.source, notice.cause, notice.detail) == (
                "logind",
                "operator_stop",
                "PrepareForShutdown",
            )
            assert logind.holding
            logind.release()
            logind.release()
            await service.let_go()
            await logind.close()

    asyncio.run(scenario())


def test_the_inhibitor_is_taken_again_when_a_shutdown_is_cancelled(bus: Bus) -> None:
    async def scenario() -> None:
        notices = Notices()
        logind = Logind(notices, address=bus.address)
        async with asyncio.timeout(20), login1(bus.address) as service:
            await logind.start()
            service.PrepareForShutdown(True)
            await notices.next()
            logind.release()
            await service.let_go()
            service.PrepareForShutdown(False)
            service.PrepareForShutdown(True)
            await notices.next()  # in order: the cancellation was heard before it
            await become(lambda: logind.holding)
            assert len(service.asked) == 2
            assert notices.waiting() == 0
            await logind.close()
            await service.let_go()

    asyncio.run(scenario())


def test_another_senders_signal_is_not_a_notice(bus: Bus) -> None:
    """Anyone on the bus may broadcast that signal; only login1's counts."""

    async def scenario() -> None:
        notices = Notices()
        logind = Logind(notices, address=bus.address)
        async with asyncio.timeout(20), login1(bus.address) as service:
            await logind.start()
            stranger = await MessageBus(bus.address).connect()
            await stranger.send(Message.new_signal(PATH, MANAGER, "PrepareForShutdown", "b", [True]))
            await stranger.call(Message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId"))
            service.PrepareForShutdown(True)
            await notices.next()
            logind.release()
            service.PrepareForShutdown(False)
            await become(lambda: logind.holding)  # signals come in order: all before this one were heard
            assert notices.waiting() == 0
            stranger.disconnect()
            await logind.close()

    asyncio.run(scenario())


def test_without_a_bus_or_without_logind_the_agent_says_so_once_and_goes_on(bus: Bus, tmp_path: Path) -> None:
    async def scenario(where: str) -> None:
        logind = Logind(Notices(), address=where)
        assert await asyncio.wait_for(logind.start(), 20) is False
        assert not logind.holding
        logind.release()
        await logind.close()

    for where in (f"unix:path={tmp_path}/nobody", bus.address):  # the second: a bus without login1
        with capture_logs() as logs:
            asyncio.run(scenario(where))
        assert [entry["event"] for entry in logs] == ["logind_absent"]


def test_a_lost_bus_is_said_and_ends_nothing(bus: Bus) -> None:
    async def scenario() -> None:
        logind = Logind(Notices(), address=bus.address)
        async with asyncio.timeout(20), login1(bus.address):
            await logind.start()
            bus.daemon.kill()
            await become(lambda: not logind.holding)
            await logind.close()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert [entry["event"] for entry in logs] == ["logind_lost"]


def test_a_bus_that_comes_later_is_found_and_so_is_the_next_after_one_that_was_lost(folder: Path) -> None:
    """Whether the agent starts, is started again or handed over before the bus is there: the brake is taken at last."""

    async def scenario() -> None:
        notices = Notices()
        logind = Logind(notices, address=f"unix:path={folder}/bus", sleep=soon)
        async with asyncio.timeout(20):
            assert not await logind.start()
            for _ in range(2):
                with running_bus(folder) as bus:
                    await asyncio.sleep(0.02)  # a bus without logind, for a while
                    async with login1(bus.address) as service:
                        await become(lambda: logind.holding)
                        service.PrepareForShutdown(True)
                        assert (await notices.next()).source == "logind"
                        assert [(what, mode) for what, _, _, mode in service.asked] == [("shutdown", "delay")]
                        bus.daemon.kill()
                        await become(lambda: not logind.holding)
                        await service.let_go()
            await logind.close()

    with capture_logs() as logs:
        asyncio.run(scenario())
    # Asked between its name and its object, it refuses the brake once: that is told, and it is asked again.
    said = [entry["event"] for entry in logs if entry["event"] != "inhibitor_lost"]
    assert said == ["logind_absent", "logind_back", "logind_lost", "logind_back", "logind_lost"]


def test_a_shutdown_that_began_while_the_bus_was_away_is_a_notice_at_once(bus: Bus) -> None:
    async def scenario() -> None:
        notices = Notices()
        logind = Logind(notices, address=bus.address)
        async with asyncio.timeout(20), login1(bus.address) as service:
            service.preparing = True
            assert await logind.start()
            assert (await notices.next()).detail == "PreparingForShutdown"
            assert service.asked == [], "logind takes no brake any more"
            await logind.close()

    asyncio.run(scenario())


def test_a_logind_that_was_started_again_is_asked_for_the_inhibitor_again(bus: Bus) -> None:
    async def scenario() -> None:
        logind = Logind(Notices(), address=bus.address)
        async with asyncio.timeout(20):
            async with login1(bus.address) as first:
                assert await logind.start()
                assert len(first.asked) == 1
            async with login1(bus.address) as second:
                await become(lambda: len(second.asked) == 1)
                await first.let_go()  # by us, who hold the new one instead
                assert logind.holding
                await logind.close()
                await second.let_go()

    asyncio.run(scenario())


def test_closing_ends_the_search_for_a_bus(tmp_path: Path) -> None:
    async def scenario() -> None:
        logind = Logind(Notices(), address=f"unix:path={tmp_path}/nobody", sleep=soon)
        assert not await logind.start()
        await logind.close()
        await asyncio.sleep(0.02)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
