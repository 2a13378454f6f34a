"""The supervisor, with real processes: it starts them, hears them, sees them end, and always gets rid of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from agent.store.formats import NewerFormatError
from agent.trainer.output import Output, last_lines
from agent.trainer.process import Exit, Trainer, TrainerRecord

PATIENCE_S = 20.0
STUBBORN = 'trap "" TERM; echo up; while :; do sleep 1; done'


started: list[Trainer] = []


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    while started:
        process = started.pop()._process
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 2 * PATIENCE_S))


def start(folder: Path, script: str, **env: str) -> Trainer:
    started.append(Trainer.hold(env=os.environ | env, cwd=folder, log_file=folder / "log"))
    started[-1].release(["sh", "-c", script])
    return started[-1]


async def program_of(trainer: Trainer, name: str) -> psutil.Process:
    """The keeper's child, once it has become `name`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for child in psutil.Process(trainer.pid).children():
            with contextlib.suppress(psutil.Error):
                if child.name() == name:
                    return child
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def said(trainer: Trainer, line: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while line not in trainer.last_lines():
        assert time.monotonic() < deadline, trainer.last_lines()
        await asyncio.sleep(0.005)


async def end_of(trainer: Trainer) -> Exit:
    return await asyncio.wait_for(asyncio.shield(trainer.ended), PATIENCE_S)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while alive(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_a_trainer_has_a_session_of_its_own_and_what_it_was_given(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, 'echo "$GIVEN in $PWD"; echo error >&2; cat; echo end of input; sleep 60', GIVEN="x")
        await said(trainer, "end of input")
        assert os.getsid(trainer.pid) == os.getpgid(trainer.pid) == trainer.pid != os.getsid(0)
        assert trainer.last_lines() == [f"x in {tmp_path}", "error", "end of input"]
        assert trainer.running
        assert await trainer.stop(grace=PATIENCE_S)

    play(scenario)


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("exit 0", 0, "exit status 0"),
        ("exit 3", 3, "exit status 3"),
        ("kill -SEGV $$", -signal.SIGSEGV, "killed by SIGSEGV"),
        ("kill -KILL $$", -signal.SIGKILL, "killed by SIGKILL"),
    ],
)
def test_how_it_ended_is_seen_at_once_and_said(tmp_path: Path, script: str, code: int, says: str) -> None:
    async def scenario() -> None:
        end = await end_of(start(tmp_path, script))
        assert (end.code, end.describe(), end.out_of_memory) == (code, says, False)

    play(scenario)


def test_a_program_that_is_not_there_ends_at_once_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = Trainer.hold(env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")
        trainer.release(["no-such-program", "a b"])
        assert (await end_of(trainer)).code == 127
        assert "no-such-program" in trainer.last_lines()[-1]

    play(scenario)


def test_a_trainer_whose_agent_died_before_it_let_it_go_never_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = Trainer.hold(env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")
        assert trainer._process
        assert trainer._process.stdin
        trainer._process.stdin.write(b"echo torn")
        trainer._process.stdin.close()
        assert (await end_of(trainer)).code == 1
        assert trainer.last_lines() == []

    play(scenario)


def test_a_command_line_arrives_as_it_was_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = Trainer.hold(env=os.environ, cwd=tmp_path, log_file=tmp_path / "log")
        trainer.release(["printf", "%s|", "a b", "$HOME", "'", '"', "#go", "two\nlines", ""])
        await end_of(trainer)
        assert "\n".join(trainer.last_lines()) == "a b|$HOME|'|\"|#go|two\nlines||"

    play(scenario)


def test_a_trainer_that_heeds_sigterm_has_its_time_and_no_more_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, 'trap "echo saved; exit 7" TERM; echo up; while :; do sleep 0.01; done')
        await said(trainer, "up")
        assert (await trainer.stop(grace=PATIENCE_S)).code == 7
        assert trainer.last_lines(1) == ["saved"]

    play(scenario)


@pytest.mark.parametrize("grace", [0.0, 0.2])
def test_a_trainer_that_heeds_no_sigterm_is_killed_after_its_grace(tmp_path: Path, grace: float) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, STUBBORN)
        await said(trainer, "up")
        begun = time.monotonic()
        end = await trainer.stop(grace=grace)
        assert end.code == -signal.SIGKILL
        assert grace <= end.at - begun < grace + 2.0
        assert not trainer.running

    play(scenario)


def test_a_stopped_process_can_be_ended_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, "exec sleep 60")
        await program_of(trainer, "sleep")  # a shell amid its fork could not be stopped
        trainer.signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, trainer.pid, os.WSTOPPED | os.WNOWAIT)
        assert (await trainer.stop(grace=0.05)).code == -signal.SIGKILL

    play(scenario)


def test_one_that_somebody_stopped_is_seen_to_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, "exec sleep 60")
        program = await program_of(trainer, "sleep")
        assert not trainer.stopped
        program.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_S
        while not trainer.stopped:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        await trainer.stop(grace=0.0)

    play(scenario)


@pytest.mark.parametrize("end", ["exits", "is stopped"])
@pytest.mark.parametrize("session", ["", "setsid "])
def test_nothing_that_it_started_outlives_it(tmp_path: Path, end: str, session: str) -> None:
    """DataLoader workers hold GPU memory; some programs make a session of their own."""

    async def scenario() -> None:
        last = "exit 0" if end == "exits" else "wait"
        trainer = start(tmp_path, f"{session}sh -c 'echo $$ >worker; {STUBBORN}' & sleep 0.05; {last}")
        await said(trainer, "up")
        worker = int((tmp_path / "worker").read_text())
        if end == "exits":
            await asyncio.wait_for(trainer.leaves.wait(), PATIENCE_S)
            assert trainer.running
        await trainer.stop(grace=0.05)
        await end_of(trainer)
        await gone(worker)

    play(scenario)


def test_a_process_that_the_kernel_does_not_clear_away_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, "sleep 60")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "_kill", lambda: None)  # as deaf as one that is stuck in a driver
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                await trainer.stop(grace=0.05, patience=0.05)
            assert time.monotonic() - begun < 2.0
        await trainer.stop(grace=0.0)

    play(scenario)


def test_the_last_lines_are_the_last_whatever_was_said_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        trainer = start(tmp_path, r"yes noise | head -n 300000; printf 'b\344d\n'; seq 30; printf unfinished")
        await end_of(trainer)
        assert trainer.last_lines(3) == ["29", "30", "unfinished"]
        assert trainer.last_lines(33)[:2] == ["noise", "b�d"]
        (tmp_path / "log").unlink()
        assert trainer.last_lines() == []

    play(scenario)


def test_every_line_is_handed_over_once_and_the_last_ones_when_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        lines: list[str] = []
        trainer = start(tmp_path, "seq 1000; sleep 0.3; printf 'half '; sleep 0.3; printf 'a line\nlast'")
        output = Output.start(trainer.log_file, adopted=False, tell=lines.append)
        await end_of(trainer)
        await output.stop(PATIENCE_S)
        assert lines == [*map(str, range(1, 1001)), "half a line", "last"]

    play(scenario)


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[TrainerRecord]:
    """A trainer whose agent has died: nobody's child here."""
    program = f"""
import asyncio, os, pathlib
from agent.trainer.output import Output
from agent.trainer.process import Trainer, TrainerRecord
async def main():
    trainer = Trainer.hold(env=os.environ, cwd=pathlib.Path("/"), log_file=pathlib.Path({str(tmp_path / "log")!r}))
    TrainerRecord.of(trainer, 1).write(pathlib.Path({str(tmp_path / "trainer.json")!r}))
    trainer.release(["sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"])
    os._exit(0)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S)
    record = TrainerRecord.read(tmp_path / "trainer.json")
    assert record
    deadline = time.monotonic() + PATIENCE_S
    while "up" not in last_lines(tmp_path / "log", 1):  # before, a signal may meet a shell that has not yet begun
        assert time.monotonic() < deadline
        time.sleep(0.005)
    yield record
    with contextlib.suppress(ProcessLookupError):
        os.killpg(record.pid, signal.SIGKILL)


@pytest.mark.parametrize(("end", "code"), [("SIGTERM", 0), ("SIGKILL", -9), ("SIGKILL to its keeper", None)])
def test_a_restarted_agent_adopts_a_trainer_follows_it_and_sees_how_it_ended(
    tmp_path: Path, orphan: TrainerRecord, end: str, code: int | None
) -> None:
    async def scenario() -> None:
        trainer = Trainer.adopt(orphan, log_file=tmp_path / "log")
        assert trainer.running
        await said(trainer, "up")
        if end == "SIGTERM":
            assert (await trainer.stop(grace=PATIENCE_S)).code == code
            return
        (child,) = psutil.Process(orphan.pid).children()
        os.kill(orphan.pid if code is None else child.pid, signal.SIGKILL)
        seen = await end_of(trainer)
        assert seen.code == code
        assert ("not known" in seen.describe()) == (code is None)

    play(scenario)


def test_a_trainer_that_ended_while_no_agent_was_there_is_found_with_its_exit_status(
    tmp_path: Path, orphan: TrainerRecord
) -> None:
    async def scenario() -> None:
        os.killpg(orphan.pid, signal.SIGTERM)
        await gone(orphan.pid)
        trainer = Trainer.adopt(orphan, log_file=tmp_path / "log")
        assert not trainer.running
        assert trainer.ended.result().code == 0

    play(scenario)


def test_the_record_of_a_trainer_is_believed_for_that_very_process_only(tmp_path: Path) -> None:
    path = tmp_path / "trainer.json"

    async def scenario() -> None:
        assert TrainerRecord.read(path) is None
        trainer = start(tmp_path, "sleep 60")
        record = TrainerRecord.of(trainer, attempt=3)
        record.write(path)
        assert TrainerRecord.read(path) == record
        assert record.alive()
        assert [each.name for each in tmp_path.glob("trainer*")] == ["trainer.json"]
        values = json.loads(path.read_text())
        for text in (*map(json.dumps, [{"pid": trainer.pid}, []]), "", '{"pid": 1'):
            path.write_text(text)
            assert TrainerRecord.read(path) is None, text
        path.write_text(json.dumps(values | {"format": 2}))
        with pytest.raises(NewerFormatError, match="newer version"):  # it may run: no second one is started beside it
            TrainerRecord.read(path)
        path.write_text(json.dumps(values | {"created": values["created"] - 5}))
        another = TrainerRecord.read(path)
        assert another
        assert not another.alive(), "its pid was used again"
        record.write(path)
        os.kill(trainer.pid, signal.SIGKILL)
        os.waitid(os.P_PID, trainer.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop must have no turn: it would reap it
        assert not record.alive()
        await end_of(trainer)
        assert not record.alive()

    play(scenario)
