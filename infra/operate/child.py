"""A `spot run` that another command starts: it saves and ends with that command, however that one ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.local.vm import processes_on

_LAST_LINES = 3
_GAVE_UP = "[gave_up]"
_KILL_S = 5.0


@dataclass(frozen=True)
class Child:
    """`folder`: the one of `spot run`. `log`: what it prints."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    @classmethod
    def start(
        cls, run_file: Path, *, folder: Path, log: Path, threads: int | None, strikes: Sequence[str] = ()
    ) -> Child:
        """`threads`: for what it computes, None: as this machine has it; the last bits of its results may depend on how
        many. `strikes`: options of
        `spot run` that take its VM away."""
        command = [
            sys.executable,
            "-P",
            "-m",
            "infra.start",
            "run",
            str(run_file),
            "--out",
            str(folder),
            "--tied",
            *strikes,
        ]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as written:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # as long as it is open, this process is there
                stdout=written,
                stderr=subprocess.STDOUT,
                env=os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
                start_new_session=True,  # Ctrl-C is passed on once, not also by the terminal
            )
        return cls(process, folder, log)

    @property
    def status(self) -> int | None:
        """Its exit status, docs/commands.md; None while it goes on."""
        return self.process.poll()

    def ask(self) -> None:
        """Have it save, and end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    def end(self, *, within: float) -> None:
        """Have it save and end, and leave nothing of it behind; after `within` seconds it is killed."""
        self.ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within)
        self.close()

    def close(self) -> None:
        """Leave no process behind, neither its own nor its VM's."""
        if self.status is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        left = processes_on((self.folder / "vms").resolve())
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, _KILL_S)

    def last_words(self) -> str:
        """Why it could not go on, in one line: what it gave up for, else the last lines that it printed."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        gave_up = [place for place, line in enumerate(lines) if line.startswith(_GAVE_UP)]
        if gave_up:
            more = itertools.takewhile(lambda line: line.startswith(" "), lines[gave_up[-1] + 1 :])
            said = [lines[gave_up[-1]].removeprefix(_GAVE_UP), *more]
        else:
            said = [line for line in lines if line.strip()][-_LAST_LINES:]
        return " ".join(line.strip() for line in said)
