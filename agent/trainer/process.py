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
from agent.trainer.output import last_lines

log = structlog.get_logger()

_KILL_WAIT_S = 5.0
# The parent of each trainer. It waits for the command, so that a trainer whose agent died before it was noted never
# begins; and it notes the exit status, which only a parent can ask for: an agent that adopts it is none. Signals to the
# trainer's group are not for it. systemd's protection of the agent from the out-of-memory killer is not for what
# eats the memory.
_KEEPER = """\
trap : HUP INT QUIT ABRT ALRM TERM USR1 USR2
go=$(cat)
[ "${go##*#}" = go ] || exit 1
echo 0 2>/dev/null >/proc/self/oom_score_adj
eval "$go" </dev/null
code=$?
{ echo $code >"$1.tmp" && mv "$1.tmp" "$1"; } 2>/dev/null
exit $code
"""


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
    """One running trainer. `pid`: its keeper's, which leads the process group of all that belongs to it."""

    pid: int
    log_file: Path
    started: float
    _process: subprocess.Popen[bytes] | None = None
    _oom_kills: int = 0
    ended: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @classmethod
    def hold(cls, *, env: Mapping[str, str], cwd: Path, log_file: Path) -> Trainer:
        """A trainer's keeper, in a session of its own, output to `log_file`; the trainer begins with `release`.

        Raises OSError when it can't be started.
        """
        _exit_file(log_file).unlink(missing_ok=True)
        with log_file.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", _KEEPER, "trainer", str(_exit_file(log_file))],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
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
        trainer.ended.set_result(Exit(_exit_code(_read_exit(log_file)), time.monotonic()))
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
            code = _exit_code(self._process.wait() if self._process else _read_exit(self.log_file))
            killed = code == -signal.SIGKILL and _oom_kill_count() > self._oom_kills
            if not self.ended.done():
                self.ended.set_result(Exit(code, time.monotonic(), killed))

        loop.add_reader(pidfd, on_end)

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
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.ended), grace)
        self.signal(signal.SIGKILL)  # children that outlived it, or itself
        return await asyncio.wait_for(asyncio.shield(self.ended), patience)

    def last_lines(self, count: int = 20) -> list[str]:
        """The last lines of its output."""
        return last_lines(self.log_file, count)


def _exit_file(log_file: Path) -> Path:
    return log_file.with_suffix(".exit")


def _read_exit(log_file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(_exit_file(log_file).read_text())
    return None


def _exit_code(status: int | None) -> int | None:
    """A shell's status of a child that a signal killed, 128 and its number, as Python's: negative."""
    if status is not None and status > 128:
        with contextlib.suppress(ValueError):
            return -signal.Signals(status - 128).value
    return status


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
