"""Fleet: plays a managed instance group of one. Starts a VM, takes it away, brings it back under the same name.

A VM here is a group of processes: `spot-agent`, its trainer, and all that they start. Its disk is a new folder at every
boot; its metadata server and the bucket are real servers on loopback. What the outside sees (when a notice was given,
when the power went, what the journal said) is kept by the fleet itself, not asked of the agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.local.metadata import MetadataServer
from infra.local.storage.control import StorageControl

MARK = "SPOT_LOCAL_VM"
_KILL_TIMEOUT_S = 10.0


class FleetError(Exception):
    """A VM did not do what was waited for in time."""


@dataclass(frozen=True)
class Event:
    """One journal line of a VM: `at` is when the fleet read it, in monotonic seconds."""

    at: float
    boot: int
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.values.get("event", ""))


@dataclass
class Vm:
    """One boot of the group's VM."""

    name: str
    boot: int
    disk: Path
    metadata: MetadataServer
    env: dict[str, str]
    process: subprocess.Popen[bytes]
    started: float
    notice_at: float | None = None
    off_at: float | None = None

    @property
    def mark(self) -> str:
        return f"{self.name}#{self.boot}"

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on this VM, wherever it was re-parented to."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def trainer(self) -> psutil.Process:
        """The trainer's process. Raises FleetError when none runs."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            return psutil.Process(json.loads((self.disk / "trainer.json").read_text())["pid"])
        raise FleetError(f"no trainer runs on {self.mark}")

    def last_step(self) -> int:
        """Updates done by the present (or last) trainer, as the VM's own disk tells: it is kept after the power cut."""
        path = self.disk / "metrics.jsonl"
        for line in reversed(path.read_text().splitlines() if path.exists() else []):
            with contextlib.suppress(ValueError, KeyError):  # the last line may be torn
                return int(json.loads(line)["step"]) + 1
        return 0


@dataclass
class Fleet:
    """A group of size one. `command`: the agent's, without state directory and log options."""

    name: str
    command: Sequence[str]
    out: Path
    storage: StorageControl
    env: dict[str, str] = field(default_factory=dict)
    boot_delay_s: float = 1.0
    attributes: dict[str, str] = field(default_factory=dict)
    mint: Callable[[str, float], str] | None = None
    echo: Callable[[Event], None] | None = None
    vms: list[Vm] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    # --- life and death of a VM ---

    def boot(self) -> Vm:
        """Start the VM under its name, with an empty disk."""
        boot = len(self.vms) + 1
        disk = self.out / "vms" / f"{self.name}-boot{boot}"
        disk.mkdir(parents=True)
        extra = {"mint": self.mint} if self.mint else {}
        metadata = MetadataServer(name=self.name, attributes=dict(self.attributes), **extra).start()  # type: ignore[arg-type]
        env = os.environ | {
            "GCE_METADATA_HOST": metadata.host,
            "STORAGE_EMULATOR_HOST": self.storage.url,
            "SPOT_STATE_DIR": str(disk),
            MARK: f"{self.name}#{boot}",
            **self.env,
        }
        vm = Vm(self.name, boot, disk, metadata, env, self._start_agent(env), time.monotonic())
        self.vms.append(vm)
        threading.Thread(target=self._read_journal, args=(vm, vm.process), daemon=True).start()
        return vm

    def restart_agent(self) -> None:
        """What systemd does about an agent that died: start it again, on the same VM."""
        self.vm.process.wait(_KILL_TIMEOUT_S)
        self.vm.process = self._start_agent(self.vm.env)
        threading.Thread(target=self._read_journal, args=(self.vm, self.vm.process), daemon=True).start()

    def _start_agent(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def vm(self) -> Vm:
        return self.vms[-1]

    def give_notice(self) -> float:
        """The metadata server says that the VM is preempted. Returns the moment, in monotonic seconds."""
        self.vm.notice_at = time.monotonic()
        self.vm.metadata.set("instance/preempted", "TRUE")
        return self.vm.notice_at

    def press_power_button(self) -> float:
        """ACPI G2 soft-off: what the agent gets of it is SIGTERM. Returns the moment."""
        at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.vm.process.send_signal(signal.SIGTERM)
        return at

    def cut_power(self) -> float:
        """ACPI G3: everything on the VM is gone at once. Returns the moment."""
        vm = self.vm
        for _ in range(3):  # a process may be born while we look
            processes = vm.processes()
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not processes:
                break
        at = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            vm.process.wait(_KILL_TIMEOUT_S)
        vm.metadata.close()
        vm.off_at = vm.off_at or at
        return at

    def preempt(self, *, warning_s: float = 0.0, shutdown_s: float = 30.0) -> None:
        """Notice, ACPI G2 after `warning_s`, power cut when the agent is down or `shutdown_s` later, as on GCE."""
        self.give_notice()
        self._wait_down(warning_s)
        self.press_power_button()
        self._wait_down(shutdown_s)
        self.cut_power()

    def recreate(self, *, stockout_s: float = 0.0) -> Vm:
        """What the group does about a VM that is gone: boot it again, once there is capacity."""
        time.sleep(self.boot_delay_s + stockout_s)
        return self.boot()

    def wait_off(self, timeout: float) -> int:
        """Wait until the agent has ended by itself; returns its exit status."""
        if not self._wait_down(timeout):
            raise FleetError(f"the agent on {self.vm.mark} did not end within {timeout:.0f} s")
        self.cut_power()
        return int(self.vm.process.returncode)

    def _wait_down(self, timeout: float) -> bool:
        try:
            self.vm.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Leave no process behind."""
        for vm in self.vms:
            for process in vm.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            vm.metadata.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the journals say ---

    def wait_event(
        self, name: str, *, timeout: float, since: float = 0.0, where: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> Event:
        """The first journal line `name` read after `since` that fits `where`. Raises FleetError after `timeout` s."""

        def found() -> Event | None:
            return next(
                (event for event in self.events if event.at >= since and event.name == name and where(event.values)),
                None,
            )

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None, timeout):
                tail = "\n".join(json.dumps(event.values) for event in self.events[-8:])
                raise FleetError(f"no {name!r} in the journal within {timeout:.0f} s; the last lines:\n{tail}")
            event = found()
            assert event is not None
            return event

    def wait_step(self, step: int, *, timeout: float) -> None:
        """Wait until `step` updates are done on the present VM."""
        deadline = time.monotonic() + timeout
        while self.vm.last_step() < step:
            if time.monotonic() > deadline or self.vm.process.poll() is not None:
                tail = "\n".join(json.dumps(event.values) for event in self.events[-8:])
                raise FleetError(f"step {step} not reached on {self.vm.mark} within {timeout:.0f} s:\n{tail}")
            time.sleep(0.02)

    def _read_journal(self, vm: Vm, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with (vm.disk / "agent.log").open("ab") as copy:
            for line in process.stdout:
                copy.write(line)
                copy.flush()
                try:
                    values = json.loads(line)
                except ValueError:
                    values = {"event": "output", "message": line.decode(errors="replace").rstrip()}
                event = Event(time.monotonic(), vm.boot, values)
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
                if self.echo:
                    self.echo(event)


def agent_command(run_file: Path) -> list[str]:
    """The command line of the real agent."""
    return [sys.executable, "-m", "agent.main", "run", str(run_file), "--log", "json", "--health-port", "0"]


@contextlib.contextmanager
def closing_on_signals(fleet: Fleet) -> Iterator[Fleet]:
    """End the fleet on SIGTERM too, not only on Ctrl-C: no VM may outlive it."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with fleet:
            yield fleet
    finally:
        signal.signal(signal.SIGTERM, before)
