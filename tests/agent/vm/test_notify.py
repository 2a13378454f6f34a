"""What the agent tells systemd, over the real protocol."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.trainer.output import Output
from agent.trainer.process import Trainer, TrainerRecord
from agent.trainer.scope import own_unit
from agent.vm.systemd import fed, notify, report, trainer_environment, watchdog_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().splitlines()


def test_it_says_what_it_is_told_to_one_line_each(manager: socket.socket) -> None:
    assert notify(ready=1, status="training\nwell")
    assert heard(manager) == ["READY=1", "STATUS=training well"]


def test_without_systemd_it_says_nothing_and_with_a_deaf_one_it_neither_waits_nor_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify(ready=1)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify(ready=1)


def test_a_full_socket_is_not_waited_for(manager: socket.socket) -> None:
    assert not all(notify(watchdog=1) for _ in range(5000))


def test_the_watchdog_is_fed_while_the_watchers_live_and_not_after(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def scenario(alive: bool) -> None:
        task = asyncio.create_task(report(lambda: alive, lambda: "step 1"))
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(scenario(True))
    manager.setblocking(False)
    assert [heard(manager) for _ in range(3)] == [["STATUS=step 1", "WATCHDOG=1"], ["WATCHDOG=1"], ["WATCHDOG=1"]]
    while True:
        try:
            heard(manager)
        except BlockingIOError:
            break
    asyncio.run(scenario(False))
    assert heard(manager) == ["STATUS=step 1"]
    with pytest.raises(BlockingIOError):
        heard(manager)


def test_the_watchdog_is_fed_while_the_run_ends(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def ending() -> None:
        async with fed("last words"):
            await asyncio.sleep(0.1)

    asyncio.run(ending())
    assert [heard(manager) for _ in range(3)] == [["STATUS=last words", "WATCHDOG=1"], ["WATCHDOG=1"], ["WATCHDOG=1"]]


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    asked = {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}
    assert watchdog_s(asked) is None
    assert watchdog_s(asked, pid=1) == 20.0
    assert watchdog_s({}) is None


def test_a_trainer_does_not_speak_to_systemd_in_the_agents_name() -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "JOURNAL_STREAM": "1:2", "HOME": "/root"}
    assert trainer_environment(environment) == {"HOME": "/root"}


def test_only_a_service_of_systemd_has_a_unit(manager: socket.socket, tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/system.slice/spot-agent.service\n")
    assert own_unit(cgroup) == "spot-agent.service"
    cgroup.write_text("0::/user.slice/user-0.slice/session-1.scope\n")
    assert own_unit(cgroup) is None


def hold(tmp_path: Path) -> Trainer:
    return Trainer.hold(env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")


def test_a_held_trainer_begins_when_it_is_released_as_its_keepers_child(tmp_path: Path) -> None:
    async def scenario() -> None:
        program = "import os, sys; print(os.getppid(), repr(sys.stdin.read())); sys.exit(7)"
        trainer = hold(tmp_path)
        await asyncio.sleep(0.2)
        assert trainer.running
        assert not (tmp_path / "log").read_text()
        trainer.release([sys.executable, "-c", program])
        assert (await asyncio.wait_for(trainer.ended, 10.0)).code == 7
        assert (tmp_path / "log").read_text() == f"{trainer.pid} ''\n"

    asyncio.run(scenario())


def test_a_held_trainer_that_is_no_longer_wanted_never_begins(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys; from pathlib import Path; from tests.agent.vm.test_notify import hold\n"
        "async def main(): print(hold(Path(sys.argv[1])).pid, flush=True); os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    dead = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert dead.returncode == -signal.SIGKILL
    pid = int(dead.stdout)
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "began").exists()


def test_a_trainer_that_can_not_be_started_ends_with_the_reason_in_its_output(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = hold(tmp_path)
        trainer.release(["/no/such/program"])
        assert (await asyncio.wait_for(trainer.ended, 10.0)).code == 127
        assert "/no/such/program" in trainer.last_lines()[-1]

    asyncio.run(scenario())


def test_a_restarted_agent_tells_what_its_trainer_printed_meanwhile_and_nothing_twice(tmp_path: Path) -> None:
    program = "import sys; [print(line.strip(), flush=True) for line in sys.stdin]"
    feed = tmp_path / "feed"
    os.mkfifo(feed)
    command = f"exec {sys.executable} -c '{program}' <{feed}"

    async def told_by(trainer: Trainer, lines: int) -> list[str]:
        told: list[str] = []
        output = Output.start(trainer.log_file, adopted=trainer.adopted, tell=told.append)
        async with asyncio.timeout(10.0):
            while len(told) < lines:  # noqa: ASYNC110 - the output is a file
                await asyncio.sleep(0.02)
        await output.stop(10.0)
        return told

    async def scenario() -> None:
        trainer = hold(tmp_path)
        trainer.release(["sh", "-c", command])
        with await asyncio.to_thread(feed.open, "w") as output:
            output.write("one\ntwo\n")
            output.flush()
            assert await told_by(trainer, 2) == ["one", "two"]
            output.write("three\n")
            output.flush()
            adopted = Trainer.adopt(TrainerRecord.of(trainer, 1), log_file=trainer.log_file)
            assert await told_by(adopted, 1) == ["three"]
        await asyncio.wait_for(trainer.ended, 10.0)

    asyncio.run(scenario())
