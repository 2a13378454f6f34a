"""The five ways in which the demo takes the VM away, and two more where it goes over a border between machines."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.local.demo.legs import Legs
from infra.local.fleet import Fleet
from infra.local.interruptions import Struck
from infra.local.storage.control import StorageControl
from infra.local.vm import Event

_START_S = 60.0
_STEP_S = 60.0
_OUTAGE_S = 4.0
_INTO_A_STEP_S = 0.3
_BORDER_S = 300.0
CADENCE = 5  # steps, as in workloads/*/demo.yaml


@dataclass
class Scenario:
    """Interrupts `fleet` again and again; `say` tells people what happens. `legs`: the groups of its stages, where they
    have several machines."""

    fleet: Fleet
    storage: StorageControl
    say: Callable[[str], None]
    long_notice_s: float
    legs: Legs | None = None

    def play(self) -> list[Struck]:
        """Strike in every way, then let the run finish. Returns what was done."""
        self.fleet.boot()
        ways = [self.notice, self.killed_trainer, self.power_cut, self.outage, self.long_notice]
        struck = []
        for way in ways:
            self.train(2)
            struck.append(way())
        if self.legs:
            struck.append(self.border(self.legs))
            self.train(2)
            struck.append(self.power_cut("power cut, second machine"))
        self.say("training to the end, undisturbed")
        self.fleet.wait_off(300.0)
        return struck

    def train(self, steps: int) -> None:
        """Let the VM come up and do a few steps, then stop the clock in the middle of the next one."""
        vm = self.fleet.vm
        event = self.fleet.wait_event("resumed", timeout=_START_S, since=self.booted_at)  # the first update is done
        target = int(event.values["step"]) + steps
        self.fleet.wait_step(target + (target % CADENCE == 0), timeout=_STEP_S)  # not just when a save was due anyway
        time.sleep(_INTO_A_STEP_S)  # well inside the step that follows the boundary just seen
        assert vm is self.fleet.vm

    @property
    def booted_at(self) -> float:
        """When the present trainer was started."""
        starts = [event.at for event in self.fleet.events if event.name == "trainer_started"]
        return max([self.fleet.vm.started, *starts])

    def notice(self) -> Struck:
        self.say("preemption: 30 s notice, in the middle of a step")
        return self._preempt("notice", "notice, mid-step", shutdown_s=30.0)

    def killed_trainer(self) -> Struck:
        self.say("SIGKILL to the trainer")
        vm = self.fleet.vm
        before = vm.last_step()
        struck_at = time.monotonic()
        vm.trainer().send_signal(signal.SIGKILL)
        back = self.fleet.wait_event("trainer_started", timeout=_START_S, since=struck_at)
        return Struck("sigkill", "trainer SIGKILL", vm.boot, struck_at, before, struck_at, back.at)

    def border(self, legs: Legs) -> Struck:
        """As soon as the first stage's last step is committed, and before anything else is done."""
        self.say("training to the border between two machines")
        self.fleet.wait_event("committed", timeout=_BORDER_S, where=lambda values: values["reason"] == "border")
        vm = self.fleet.vm
        struck_at = time.monotonic()
        gone_at = self.fleet.cut_power()
        self.say("power cut at the border: the stage is complete, and nobody has been told")
        before = vm.last_step()
        self.fleet.recreate()
        following = legs.follow()
        self.say(f"the second machine's VM boots: {following.name}")
        return Struck("border", "power cut at the border", vm.boot, struck_at, before, gone_at, following.started)

    def power_cut(self, title: str = "power cut") -> Struck:
        self.say("power cut, no notice at all")
        vm = self.fleet.vm
        struck_at = time.monotonic()
        gone_at = self.fleet.cut_power()
        before = vm.last_step()
        back = self.fleet.recreate()
        return Struck("power_cut", title, vm.boot, struck_at, before, gone_at, back.started)

    def outage(self) -> Struck:
        self.say(f"preemption, and Cloud Storage is away for {_OUTAGE_S:.0f} s just then")
        self.storage.outage(seconds=_OUTAGE_S)
        # The VM that comes next is made from another template.
        self.fleet.attributes["spot-notice"] = f"{self.long_notice_s:g} s"
        return self._preempt("outage", f"notice, outage of {_OUTAGE_S:.0f} s", shutdown_s=30.0)

    def long_notice(self) -> Struck:
        notice = self.long_notice_s
        # Once it has saved, it knows how late it may save again.
        self.fleet.wait_event("committed", timeout=_START_S, since=self.fleet.vm.started)
        time.sleep(_INTO_A_STEP_S)
        self.say(f"preemption with a {notice:g} s notice: training goes on until the last safe moment")
        return self._preempt("long_notice", f"notice of {notice:g} s", warning_s=notice, shutdown_s=30.0)

    def _preempt(self, kind: str, title: str, *, shutdown_s: float, warning_s: float = 0.0) -> Struck:
        vm = self.fleet.vm
        self.fleet.preempt(warning_s=warning_s, shutdown_s=shutdown_s)
        if any(event.name == "complete" for event in self.fleet.events):
            title += ", ended"  # this machine became faster than it was when the demo measured it
        assert vm.notice_at is not None and vm.off_at is not None
        before = vm.last_step()
        back = self.fleet.recreate()
        return Struck(kind, title, vm.boot, vm.notice_at, before, vm.off_at, back.started)


def named(values: Mapping[str, Any], counted: str) -> str:
    """What is in the bucket by what is `counted`: its step, or the number of a program's save, with the step that the
    program tells."""
    own = values.get("program_step")
    return f"{counted} {values['step']}" + (f" (step {own})" if own is not None else "")


def describe(event: Event, counted: str = "step") -> str:
    """A journal line for people; empty for those that say nothing to them. `counted`: "save" for `kind: command`."""
    values = event.values
    match event.name:
        case "agent_started":
            return f"VM boot {event.boot}: agent up"
        case "fetched":
            return f"checkpoint of {named(values, counted)} fetched from {values['source']}"
        case "restored":
            return f"restored at step {values['step']}" if values["step"] else "starting from scratch"
        case "notice":
            return f"agent heard of it ({values['source']})"
        case "training_on":
            return f"first save is safe; training on for {values['for_s']:.0f} s"
        case "committed" if values["reason"] != "cadence":
            return f"{named(values, counted)} committed ({values['reason']}, {values['durable_s']:.2f} s)"
        case "window_used":
            safe = "what was saved" if values["step_committed"] is None else f"step {values['step_committed']}"
            return f"window used: {safe} is safe, {values['left_s']:.0f} s to spare"
        case "incident":
            lost = values["steps_lost"]
            again = "how much is lost is not known" if lost is None else f"{lost} steps to train again"
            return f"{values['kind']}: {again}"
        case "stage_complete":
            goes_on = "the next one goes on" if values["here"] else "the next one is another machine's"
            return f"stage {values['stage']} is complete at step {values['step']}: {goes_on}"
        case "border":
            return f"the border is noted at step {values['step']}"
        case "group_resized":
            return f"{values['group'].rpartition('/')[2]}: asked for {values['size']} VMs"
        case "complete":
            return f"complete at {counted} {values.get('step', '?')}"
        case "gave_up" | "vm_unfit" | "save_failed" | "not_staged" | "not_committed":
            return f"[{event.name}] {values.get('error') or values.get('why')}"
    return ""
