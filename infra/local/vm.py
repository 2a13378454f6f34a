"""A VM as a group of processes: `spot-agent`, its trainer, and all that they start.

Its disk is a new folder; its metadata server is a real one on loopback. What the outside sees (when a notice was given,
when the power went, what the journal said) is kept here, not asked of the agent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.local.metadata import MetadataServer, MintToken, random_token

MARK = "SPOT_LOCAL_VM"
DISK = "SPOT_LOCAL_DISK"
"""Which disk a process's VM has: two of one name are never taken for each other."""
_KILL_TIMEOUT_S = 10.0
_HEALTH_S = 2.0
_JOURNAL_S = 5.0


class VmError(Exception):
    """A VM did not do what was waited for in time."""


@dataclass(frozen=True)
class Event:
    """One journal line of a VM: `at` is when it was read out here, in monotonic seconds."""

    at: float
    boot: int
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.values.get("event", ""))


@dataclass
class Vm:
    """One boot of a VM. `command`: the agent's; `tell` gets each line of its journal, from a thread."""

    name: str
    boot: int
    disk: Path
    command: Sequence[str]
    metadata: MetadataServer
    env: dict[str, str]
    tell: Callable[[Event], None]
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)
    _reader: threading.Thread = field(init=False)
    notice_at: float | None = None
    button_at: float | None = None
    went_by_itself: bool = False
    off_at: float | None = None
    health_port: int = 0

    @classmethod
    def start(
        cls,
        *,
        name: str,
        boot: int,
        disk: Path,
        command: Sequence[str],
        env: Mapping[str, str],
        attributes: Mapping[str, str],
        tell: Callable[[Event], None],
        mint: MintToken = random_token,
        metadata_away_s: float = 0.0,
    ) -> Vm:
        """Switch it on: `disk` is made, `env` is what the image adds to this process's environment; its metadata server
        answers after `metadata_away_s` seconds."""
        disk.mkdir(parents=True)
        metadata = MetadataServer(name=name, attributes=attributes, mint=mint)
        metadata.fail_for(metadata_away_s)
        metadata.start()
        own = {
            "GCE_METADATA_HOST": metadata.host,
            "SPOT_STATE_DIR": str(disk),
            "SPOT_SCRATCH": str(disk),
            MARK: f"{name}#{boot}",
            DISK: str(disk),
            "SPOT_STAGES": attributes.get("spot-stages", ""),  # as the startup script hands it on
        }
        vm = cls(name, boot, disk, command, metadata, {**os.environ, **own, **env}, tell)
        vm._start_agent()
        vm.started = time.monotonic()
        return vm

    def restart_agent(self) -> None:
        """What systemd does about an agent that died: start it again."""
        if not self.wait_down(_KILL_TIMEOUT_S):
            raise VmError(f"the agent on {self.mark} has not ended")
        self._start_agent()

    # --- power ---

    def give_notice(self) -> float:
        """The metadata server says that the VM is preempted. Returns the moment, in monotonic seconds."""
        self.notice_at = time.monotonic()
        self.metadata.set("instance/preempted", "TRUE")
        return self.notice_at

    def press_power_button(self) -> float:
        """ACPI G2 soft-off: what the agent gets of it is SIGTERM. Returns the moment."""
        at = time.monotonic()
        self.button_at = self.button_at or at
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return at

    def cut_power(self) -> float:
        """ACPI G3: everything on the VM is gone at once. Returns the moment."""
        self.went_by_itself = not self.is_running()
        for _ in range(3):  # a process may be born while we look
            processes = self.processes()
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not processes:
                break
        at = time.monotonic()
        self.wait_down(_KILL_TIMEOUT_S)
        self.metadata.close()
        self.off_at = self.off_at or at
        return at

    def is_running(self) -> bool:
        """Whether it is on; where an agent that has ended takes the machine with it, as its unit does on preemption."""
        return self.process.poll() is None

    def wait_down(self, timeout: float) -> bool:
        """Whether the agent has ended within `timeout` seconds; all that its journal said has been read by then."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(_JOURNAL_S)
        return True

    # --- what is seen of it from outside ---

    def is_healthy(self) -> bool:
        """One answer of the health check that a managed instance group makes."""
        if not self.health_port:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=_HEALTH_S)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def mark(self) -> str:
        return f"{self.name}#{self.boot}"

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on this VM, wherever it was re-parented to."""
        return processes_on(self.disk)

    def trainer(self) -> psutil.Process:
        """The trainer's process, its keeper's child. Raises VmError when none runs."""
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            return psutil.Process(json.loads((self.disk / "trainer.json").read_text())["pid"]).children()[0]
        raise VmError(f"no trainer runs on {self.mark}")

    def kill_trainer(self) -> bool:
        """SIGKILL to the trainer. False where none runs just now."""
        with contextlib.suppress(VmError, psutil.Error):
            self.trainer().kill()
            return True
        return False

    def last_step(self) -> int:
        """Updates done by the present (or last) trainer, as the VM's own disk tells: it is kept after the power cut."""
        path = self.disk / "metrics.jsonl"
        for line in reversed(path.read_text().splitlines() if path.exists() else []):
            with contextlib.suppress(ValueError, KeyError):  # the last line may be torn
                return int(json.loads(line)["step"]) + 1
        return 0

    def close(self) -> None:
        """Leave no process behind."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.metadata.close()

    def _start_agent(self) -> None:
        self.process = subprocess.Popen(
            [*self.command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_journal, args=(self.process,), daemon=True)
        self._reader.start()

    def _read_journal(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with (self.disk / "agent.log").open("ab", buffering=0) as copy:
            for line in process.stdout:
                with contextlib.suppress(OSError):  # a disk that is full takes no copy, and the journal goes on
                    copy.write(line)
                try:
                    values = json.loads(line)
                except ValueError:
                    values = {"event": "output", "message": line.decode(errors="replace").rstrip()}
                if values.get("event") == "agent_started":
                    self.health_port = int(values["health_port"])
                self.tell(Event(time.monotonic(), self.boot, values))


def processes_on(disk: Path) -> list[psutil.Process]:
    """The processes of the VM with that disk, or, where it is a folder of disks, of all of them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            theirs = process.environ().get(DISK)
            if theirs and (Path(theirs) == disk or disk in Path(theirs).parents):
                found.append(process)
    return found
