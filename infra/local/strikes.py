"""`spot run --preempt-every`, `--events`: the VM is taken away as a script says, and the next one boots."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import parse_seconds
from infra.local.asked_to_stop import AskedToStop
from infra.local.fleet import Fleet
from infra.local.interruptions import Struck
from infra.local.script import Happening, ScriptError, read_script
from infra.local.storage.control import StorageControl
from infra.local.vm import Vm

_LOOK_S = 0.1
_SHUTDOWN_S = 30.0  # from ACPI G2 to the power cut, as for Spot VMs
_FRUITLESS = 3
LEAST_S = 5.0
"""A VM that goes sooner again has not even started its agent."""


def every(seconds: float) -> Iterator[Happening]:
    """A preemption each `seconds`, without an end."""
    return (Happening(at=number * seconds, do="preempt") for number in itertools.count(1))


def script_of(preempt_every: str | None, events: Path | None, *, bucket: str) -> Iterator[Happening] | None:
    """What the options of these names say that happens to the VM. Raises ValueError with what is wrong with them."""
    if preempt_every is not None and events is not None:
        raise ValueError("give --preempt-every or --events, not both")
    if preempt_every is not None:
        seconds = parse_seconds(preempt_every)
        if seconds < LEAST_S:
            raise ValueError(f"--preempt-every {preempt_every}: write {LEAST_S:.0f} s or more")
        return every(seconds)
    if events is not None:
        found = read_script(events)
        refuse(found, bucket=bucket)
        return iter(found)
    return None


def refuse(script: Iterable[Happening], *, bucket: str) -> None:
    """Raises ScriptError for what can't happen to one VM at home."""
    for event in script:
        if event.vm:
            raise ScriptError(f"there is one VM here, number 0: {event.do} is for number {event.vm}")
        if event.do == "bucket_away" and not bucket.startswith("gs://"):
            raise ScriptError(f"{bucket} is a folder: it can't be away")


@dataclass
class Strikes:
    """`notice_s`: of a preemption whose event says none; `counts`: whether the program's steps are told.

    `turn` is called again and again, and does what is due.
    """

    fleet: Fleet
    storage: StorageControl
    script: Iterator[Happening]
    asked: AskedToStop
    say: Callable[[str], None]
    notice_s: float = 0.0
    counts: bool = True
    clock: Callable[[], float] = time.monotonic
    struck: list[Struck] = field(default_factory=list)
    _next: Happening | None = None
    _boot_at: float | None = None
    _capacity_at: float = float("-inf")
    _gone: Struck | None = None
    _steps: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begun = self.clock()
        self._next = next(self.script, None)

    @property
    def between(self) -> bool:
        """Whether there is no VM just now, and one is to come."""
        return self._boot_at is not None

    def turn(self) -> None:
        """Boot what is to boot, do what is due."""
        now = self.clock()
        if self._boot_at is not None:
            if now >= max(self._boot_at, self._capacity_at):
                self._boot_at = None
                self._back(self.fleet.boot().started)
            return
        if self._gone and (back := self._trainer_back(self._gone.struck_at)):
            self._back(back)
        if self._next and now >= self._begun + self._next.at:
            event, self._next = self._next, next(self.script, None)
            self._do(event)

    def _do(self, event: Happening) -> None:
        lasting, vm, at = event.lasting or 0.0, self.fleet.vm, self.clock()
        match event.do:
            case "preempt":
                notice = self.notice_s if event.notice is None else event.notice
                self.say(f"preemption: the power goes in {notice + _SHUTDOWN_S:.0f} s")
                self._preempt(vm, notice)
            case "power_cut":
                self.say("power cut, no notice at all")
                self._lose(vm, event.do, at)
            case "zone_outage":
                self.say(f"power cut, and no VM boots for {lasting:.0f} s: an outage of the zone")
                self._capacity_at = at + lasting
                self._lose(vm, event.do, at)
            case "stock_out":
                self.say(f"no VM can be had for {lasting:.0f} s")
                self._capacity_at = at + lasting
            case "bucket_away":
                self.say(f"Cloud Storage is away for {lasting:.0f} s")
                self.storage.outage(seconds=lasting)
            case "trainer_crash":
                before = self._steps_of(vm)
                if vm.kill_trainer():
                    self.say("SIGKILL to the trainer")
                    self._gone = Struck(event.do, "trainer SIGKILL", vm.boot, at, before, at, at)

    def _preempt(self, vm: Vm, notice: float) -> None:
        at = vm.give_notice()
        self._wait_down(vm, notice)
        vm.press_power_button()
        self._wait_down(vm, _SHUTDOWN_S, however_asked=True)
        self._lose(vm, "preempt", at)

    def _lose(self, vm: Vm, kind: str, at: float) -> None:
        gone_at = vm.cut_power()
        if any(event.name == "complete" for event in self.fleet.events):
            return  # it was quicker, and needs no other VM
        self._gone = Struck(kind, kind.replace("_", " "), vm.boot, at, self._steps_of(vm), gone_at, gone_at)
        self._boot_at = self.clock() + self.fleet.boot_delay_s
        self._mind_progress()

    def _wait_down(self, vm: Vm, seconds: float, *, however_asked: bool = False) -> None:
        end = self.clock() + seconds
        while not vm.wait_down(_LOOK_S) and self.clock() < end and (however_asked or not self.asked):
            pass

    def _back(self, at: float) -> None:
        if self._gone:
            self.struck.append(Struck(**{**vars(self._gone), "back_at": at}))
            self._gone = None

    def _trainer_back(self, since: float) -> float | None:
        starts = (e.at for e in self.fleet.events if e.name == "trainer_started" and e.at >= since)
        return next(starts, None)

    def _mind_progress(self) -> None:
        """Say once that it comes too often for anything to be won in between."""
        self._steps.append(max((int(e.values["step"]) for e in self.fleet.events if e.name == "committed"), default=0))
        last = self._steps[-_FRUITLESS:]
        if len(last) == _FRUITLESS and len(set(last)) == 1:
            self._steps.append(-1)
            self.say(f"nothing was won in the last {_FRUITLESS} VMs' lives: give them more time")

    def _steps_of(self, vm: Vm) -> int | None:
        """Updates done, as the VM's disk tells."""
        return vm.last_step() if self.counts else None
