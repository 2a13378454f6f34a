"""Supervisor: owns the trainer process. Starts it, sees it end, stops it in bounded time, keeps its last words.

The trainer lives in its own session, so that a signal to the agent's group does not reach it, and writes to a file,
so that it neither blocks nor dies when the agent does. A restarted agent adopts a trainer that is still running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import structlog

from agent.store.formats import TRAINER_FORMAT, refuse_newer
from agent.trainer.family import Member, family_of, hearers
from agent.trainer.keeper import KEEPER, adopt_orphans, exit_code, exit_file, read_exit
from agent.trainer.output import last_lines

log = structlog.get_logger()

_KILL_WAIT_S = 5.0
_LOOK_S = 0.25
_ROUNDS = 3  # of looking for processes to kill, for one may fork meanwhile


@dataclass(frozen=True)
class Exit:
    """How a trainer ended. `code`: exit status, negative for a signal, None where nobody knows it."""

    code: int | None
    at: float
    out_of_memory: bool = False

    def describe(self) -> str:
        if self.out_of_memory:
            return "killed by the kernel: out of memory"
        if self.code is None:
            return "ended, and its exit status is not known"
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-self.code).name}"
        return f"exit status {self.code}"


@dataclass
class Trainer:
    """One running trainer. `pid`: its keeper's, which leads the process group of all that belongs to it. `leaves` is
    set once its command has ended, and something that it started has not."""

    pid: int
    log_file: Path
    started: float
    _process: subprocess.Popen[bytes] | None = None
    _oom_kills: int = 0
    ended: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    leaves: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def hold(cls, *, env: Mapping[str, str], cwd: Path, log_file: Path) -> Trainer:
        """A trainer's keeper, in a session of its own, output to `log_file`; the trainer begins with `release`.

        Raises OSError when it can't be started.
        """
        exit_file(log_file).unlink(missing_ok=True)
        with log_file.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", KEEPER, "trainer", str(exit_file(log_file))],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=adopt_orphans,  # noqa: PLW1509 - one system call, without a lock
            )
        trainer = cls(process.pid, log_file, time.monotonic(), process, _oom_kill_count())
        trainer._watch()
        return trainer

    @classmethod
    def adopt(cls, record: TrainerRecord, *, log_file: Path) -> Trainer:
        """The trainer that an earlier agent started; it may have ended meanwhile."""
        trainer = cls(record.pid, log_file, time.monotonic(), None, _oom_kill_count())
        if record.alive():
            with contextlib.suppress(ProcessLookupError):
                trainer._watch()
                return trainer
        trainer.ended.set_result(Exit(exit_code(read_exit(log_file)), time.monotonic()))
        return trainer

    def release(self, command: Sequence[str]) -> None:
        """Let it begin; a command that can't be started ends with 127."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already; its end is seen like any other
            self._process.stdin.write(f"{shlex.join(command)}\n#go".encode())
            self._process.stdin.close()

    def _watch(self) -> None:
        """A pidfd becomes readable when the process ends, child or not."""
        pidfd = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()

        def on_end() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self.signal(signal.SIGKILL)  # children that outlived it hold its GPU memory; its pid is still taken
            status = self._process.wait() if self._process else None
            noted = read_exit(self.log_file)  # of the command; its keeper may have been ended with what it left behind
            code = exit_code(status if noted is None else noted)
            killed = code == -signal.SIGKILL and _oom_kill_count() > self._oom_kills
            if not self.ended.done():
                self.ended.set_result(Exit(code, time.monotonic(), killed))

        loop.add_reader(pidfd, on_end)
        loop.call_later(_LOOK_S, self._look_for_its_end)

    def _look_for_its_end(self) -> None:
        if self.running and not self.leaves.is_set():
            if exit_file(self.log_file).exists():
                self.leaves.set()
            asyncio.get_running_loop().call_later(_LOOK_S, self._look_for_its_end)

    @property
    def family(self) -> list[Member]:
        """All of its processes."""
        return family_of(self.pid)

    @property
    def adopted(self) -> bool:
        """Whether an earlier agent started it."""
        return self._process is None

    @property
    def running(self) -> bool:
        return not self.ended.done()

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it (SIGSTOP): it does nothing, and hears nothing."""
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self.pid).children(recursive=True)
            return any(process.status() == psutil.STATUS_STOPPED for process in family)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the trainer and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, *, grace: float, patience: float = _KILL_WAIT_S) -> Exit:
        """SIGTERM, `grace` seconds, SIGKILL: ends the trainer and everything it started.

        Raises:
            TimeoutError: the kernel has not cleared it away within another `patience` seconds, as it happens to a
                process of several 100 GB or one stuck in a driver.
        """
        if self.running:
            self._terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.ended), grace)
        if self.running:
            self._kill()
        return await asyncio.wait_for(asyncio.shield(self.ended), patience)

    def _terminate(self) -> None:
        """SIGTERM to whom it is meant for: a worker below a program that hears it is that program's to end."""
        family = self.family
        heard = {each.pid for one in hearers(family, signal.SIGTERM)[:1] for each in one}
        for member in family:
            if heard.isdisjoint(member.above):
                _send(member.pid, signal.SIGTERM)

    def _kill(self) -> None:
        """Its keeper last, for that knows what has left the group."""
        for _ in range(_ROUNDS):
            for member in (family := self.family):
                _send(member.pid, signal.SIGKILL)
            if not family:
                break
        self.signal(signal.SIGKILL)

    def last_lines(self, count: int = 20) -> list[str]:
        """The last lines of its output."""
        return last_lines(self.log_file, count)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _oom_kill_count() -> int:
    """How often the kernel killed something of our cgroup, or of the machine, for memory."""
    total = 0
    for path, key in (("/proc/vmstat", "oom_kill"), ("/sys/fs/cgroup/memory.events", "oom_kill")):
        with contextlib.suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.split()[0] == key:
                    total += int(line.split()[1])
    return total


@dataclass(frozen=True)
class TrainerRecord:
    """What a restarted agent must know about a trainer it did not start."""

    pid: int
    created: float
    attempt: int
    restored: bool = False
    """It had its state back, so that it has been training since."""
    final: int | None = None
    """The step of its last save, by its own word: it was about to end."""
    format: int = TRAINER_FORMAT

    def write(self, path: Path) -> None:
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(path)

    @classmethod
    def of(cls, trainer: Trainer, attempt: int) -> TrainerRecord:
        return cls(trainer.pid, psutil.Process(trainer.pid).create_time(), attempt)

    @classmethod
    def read(cls, path: Path) -> TrainerRecord | None:
        """The record of the trainer that was started last; None where there is none, or it can't be read. Raises
        NewerFormatError."""
        try:
            values = json.loads(path.read_text())
            refuse_newer(values, reads=TRAINER_FORMAT, where=str(path))
            final = values.get("final")
            return cls(
                int(values["pid"]), float(values["created"]), int(values["attempt"]), bool(values.get("restored")),
                None if final is None else int(final),
            )  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def alive(self) -> bool:
        """Whether its very process (same pid, same start time) is still running."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 0.1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False
