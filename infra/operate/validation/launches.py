"""Where a validation trains its run: here on the local cloud, or on Spot VMs by the same road as `spot deploy`.

Both begin it, know whether it goes on, and take away what they have started, however it went.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.config import RunConfig
from agent.store import Store, open_store
from infra.local.asked_to_stop import AskedToStop
from infra.operate.child import Child
from infra.operate.status.places import local_url

_LOOK_S = 0.2
_SAVES_S = 60.0  # more than the run's window: the command that is asked to stop
_DEPLOY_S = 3600.0
_ENDS_S = 300.0  # Terraform, asked to stop: it writes its state and gives its lock back
_DESTROY_S = 1800.0
SPOT = (sys.executable, "-P", "-m", "infra.start")


class NotLaunched(Exception):
    """The run could not be begun; the text says why."""


class NotCleanedUp(Exception):
    """What was started may still be there; the text says how to take it away."""


class Launch(Protocol):
    """A run on its way. `look_s`: how often its bucket is worth a look."""

    look_s: float

    def store(self) -> Store:
        """Where its records are. Raises StoreError."""
        ...

    def begin(self, asked: AskedToStop) -> None:
        """Raises NotLaunched."""
        ...

    def ended(self) -> str | None:
        """Why it does not go on though its bucket does not say that it ended; None where it goes on."""
        ...

    def clean_up(self, *, complete: bool) -> None:
        """Take away what was begun, saved or not; what is `complete` ends by itself just now. Raises NotCleanedUp."""
        ...


@dataclass
class AtHome:
    """On the local cloud, by a `spot run` of its own. `strikes`: options of it that take its VM away."""

    run: RunConfig
    run_file: Path
    folder: Path
    threads: int | None = None
    strikes: Sequence[str] = ()
    look_s: float = 1.0
    _child: Child | None = None

    def store(self) -> Store:
        url = f"{self.run.checkpoint.bucket}/{self.run.run_id}"
        return open_store(local_url(url, self.folder) or url)

    def begin(self, asked: AskedToStop) -> None:
        log = self.run_file.with_suffix(".log")
        log.unlink(missing_ok=True)
        self._child = Child.start(
            self.run_file, folder=self.folder, log=log, threads=self.threads, strikes=self.strikes
        )

    def ended(self) -> str | None:
        assert self._child is not None
        return None if self._child.status is None else self._child.last_words()

    def clean_up(self, *, complete: bool) -> None:
        if self._child is None:
            return
        if complete:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.process.wait(_SAVES_S)
        self._child.end(within=self.run.machine.shutdown_window + _SAVES_S)


@dataclass
class InTheCloud:
    """On Spot VMs: `spot deploy --run-only`, and `spot destroy` in the end. `spot`: the command itself."""

    run: RunConfig
    run_file: Path
    out: Path
    say: Callable[[str], None]
    spot: Sequence[str] = SPOT
    look_s: float = 30.0
    _begun: bool = field(default=False)

    def store(self) -> Store:
        return open_store(f"{self.run.checkpoint.bucket}/{self.run.run_id}")

    def begin(self, asked: AskedToStop) -> None:
        self._begun = True
        status = self._spot("deploy", "--yes", "--run-only", timeout=_DEPLOY_S, asked=asked)
        if status and not asked:
            raise NotLaunched(f"spot deploy {self.run_file} ended with {status}; it says why above")

    def ended(self) -> str | None:
        return None  # its bucket says so, or the bound of time

    def clean_up(self, *, complete: bool = False) -> None:
        if not self._begun:
            return
        self.say(f"taking away what {self.run.run_id} was given")
        try:
            status = self._spot("destroy", "--yes", timeout=_DESTROY_S)
        except OSError as error:
            raise NotCleanedUp(f"{error}\n    fix: spot destroy {self.run_file}") from error
        if status:
            raise NotCleanedUp(
                f"spot destroy ended with {status}, it says why above: VMs may be left, and cost\n"
                f"    fix: spot destroy {self.run_file}"
            )

    def clean_up_after_another(self) -> None:
        """What a validation that was killed has left. Raises NotCleanedUp."""
        self._begun = True
        self.clean_up()

    def _spot(self, command: str, *options: str, timeout: float, asked: AskedToStop | None = None) -> int:
        """Run it on the operator's screen; asked to stop, it is given time to end by itself."""
        process = subprocess.Popen(
            [*self.spot, command, str(self.run_file), f"--out={self.out}", *options],
            env=dict(os.environ),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes to us alone
        )
        end, told = time.monotonic() + timeout, False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_LOOK_S)
            late = time.monotonic() > end
            with contextlib.suppress(ProcessLookupError):
                if late and told:
                    os.killpg(process.pid, signal.SIGKILL)
                elif late or asked:
                    if not told:
                        os.killpg(process.pid, signal.SIGINT)
                        end = time.monotonic() + _ENDS_S
                    told = True
