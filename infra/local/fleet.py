"""Fleet: boots VMs for one run, takes them away by hand, and keeps what all their journals said.

By hand: a test or the demo says what happens next. `infra.local.group` is who decides as Compute Engine does.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.metadata import MintToken, random_token
from infra.local.storage.control import StorageControl
from infra.local.vm import Event, Vm, VmError


@dataclass
class Fleet:
    """`command`: the agent's, without state directory and log options. `booted`: how many of its VMs there were before,
    by their disks in `out`."""

    name: str
    command: Sequence[str]
    out: Path
    storage: StorageControl
    env: dict[str, str] = field(default_factory=dict)
    boot_delay_s: float = 1.0
    attributes: dict[str, str] = field(default_factory=dict)
    mint: MintToken = random_token
    booted: int = 0
    echo: Callable[[Event], None] | None = None
    vms: list[Vm] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    # --- life and death of a VM ---

    def boot(self, name: str = "", attributes: Mapping[str, str] | None = None, *, metadata_away_s: float = 0.0) -> Vm:
        """Start a VM with an empty disk, under the fleet's name and with its attributes where none are given."""
        name, boot = name or self.name, self.booted + len(self.vms) + 1
        vm = Vm.start(
            name=name,
            boot=boot,
            disk=self.out / "vms" / f"{name}-boot{boot}",
            command=self.command,
            env={"STORAGE_EMULATOR_HOST": self.storage.url, **self.env},
            attributes=dict(self.attributes if attributes is None else attributes),
            tell=self._note,
            mint=self.mint,
            metadata_away_s=metadata_away_s,
        )
        self.vms.append(vm)
        return vm

    @property
    def vm(self) -> Vm:
        return self.vms[-1]

    def restart_agent(self) -> None:
        """What systemd does about an agent that died: start it again, on the same VM."""
        self.vm.restart_agent()

    def give_notice(self) -> float:
        """See `Vm`; these three are for the newest one."""
        return self.vm.give_notice()

    def press_power_button(self) -> float:
        return self.vm.press_power_button()

    def cut_power(self) -> float:
        return self.vm.cut_power()

    def preempt(self, *, warning_s: float = 0.0, shutdown_s: float = 30.0) -> None:
        """Notice, ACPI G2 after `warning_s`, power cut when the agent is down or `shutdown_s` later, as on GCE."""
        self.give_notice()
        self.vm.wait_down(warning_s)
        self.press_power_button()
        self.vm.wait_down(shutdown_s)
        self.cut_power()

    def recreate(self, *, stockout_s: float = 0.0) -> Vm:
        """What a group does about a VM that is gone: boot it again, once there is capacity."""
        time.sleep(self.boot_delay_s + stockout_s)
        return self.boot()

    def wait_off(self, timeout: float) -> int:
        """Wait until the agent has ended by itself; returns its exit status."""
        if not self.vm.wait_down(timeout):
            raise VmError(f"the agent on {self.vm.mark} did not end within {timeout:.0f} s")
        self.cut_power()
        return int(self.vm.process.returncode)

    def close(self) -> None:
        """Leave no process behind."""
        for vm in self.vms:
            vm.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the journals say ---

    def wait_event(
        self, name: str, *, timeout: float, since: float = 0.0, where: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> Event:
        """The first journal line `name` read after `since` that fits `where`. Raises VmError after `timeout` s."""

        def found() -> Event | None:
            return next(
                (event for event in self.events if event.at >= since and event.name == name and where(event.values)),
                None,
            )

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None, timeout):
                tail = "\n".join(json.dumps(event.values) for event in self.events[-8:])
                raise VmError(f"no {name!r} in the journal within {timeout:.0f} s; the last lines:\n{tail}")
            event = found()
            assert event is not None
            return event

    def wait_step(self, step: int, *, timeout: float) -> None:
        """Wait until `step` updates are done on the present VM."""
        deadline = time.monotonic() + timeout
        while self.vm.last_step() < step:
            if time.monotonic() > deadline or self.vm.process.poll() is not None:
                tail = "\n".join(json.dumps(event.values) for event in self.events[-8:])
                raise VmError(f"step {step} not reached on {self.vm.mark} within {timeout:.0f} s:\n{tail}")
            time.sleep(0.02)

    def _note(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()
        if self.echo:
            self.echo(event)


def agent_command(run_file: Path) -> list[str]:
    """The command line of the real agent."""
    return [sys.executable, "-P", "-m", "agent.start", "run", str(run_file), "--log", "json", "--health-port", "0"]


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
