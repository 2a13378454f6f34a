"""Group: does for VMs what a managed instance group does, with the semantics that the run rests on.

    group = GroupController(compute, compute.add_group(path, target_size=1), template, boot, clock=clock)
    while ...: group.step()

What is wanted (`InstanceGroup.target_size`, instances to recreate) is in the local Compute API, where the run itself
can resize its group; so is what can be seen (status, actions, errors). `step` looks at everything once and never waits.

- A VM that is gone, preempted or not, comes back under the same name, from the template it had, or from the newest
  where the policy updates on repair.
- Auto-healing: a VM whose health check fails is recreated. Failures count once the initial delay is over, or once the
  VM has been healthy, whichever is first.
- Without capacity nothing boots; why is in `listErrors` and in the instance's last attempt. In BULK mode the VMs of a
  new target size are created all at once or not at all; a repair concerns its own VM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

from infra.local.compute import ComputeServer, InstanceGroup, ManagedInstance

NO_CAPACITY = "ZONE_RESOURCE_POOL_EXHAUSTED"


class GroupVm(Protocol):
    """What a VM has to bear: a group of processes, a container or an emulated machine can."""

    def is_running(self) -> bool: ...
    def is_healthy(self) -> bool: ...
    def give_notice(self) -> object: ...
    def press_power_button(self) -> object: ...
    def cut_power(self) -> object: ...


@dataclass(frozen=True)
class Template:
    """What VMs are made from. `notice_s`: `preemptionNoticeDuration`, from the notice to ACPI G2."""

    version: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    notice_s: float = 0.0


@dataclass(frozen=True)
class Policy:
    """Seconds of the group's clock. `shutdown_s`: from ACPI G2 to ACPI G3. `retry_s`: until capacity is asked for
    again."""

    initial_delay_s: float = 300.0
    check_every_s: float = 10.0
    unhealthy_after: int = 3
    update_on_repair: bool = False
    target_size_mode: Literal["INDIVIDUAL", "BULK"] = "INDIVIDUAL"
    shutdown_s: float = 30.0
    retry_s: float = 30.0


@dataclass
class Zone:
    """Who has room for VMs. `room`: how many there can be; None for any number."""

    room: int | None = None
    exhausted_until: float = 0.0

    def has_room(self, *, running: int, wanted: int, now: float) -> bool:
        return now >= self.exhausted_until and (self.room is None or running + wanted <= self.room)


@dataclass
class _Instance:
    """One name of the group, with or without a VM at present."""

    name: str
    template: Template
    shown: ManagedInstance
    vm: GroupVm | None = None
    booted_at: float = 0.0
    was_healthy: bool = False
    failures: int = 0
    next_check: float = 0.0
    ask_again_at: float = 0.0
    new: bool = True
    leaving: bool = False
    button_at: float | None = None
    cut_at: float | None = None

    @property
    def going(self) -> bool:
        """Whether its VM has been told to go."""
        return self.button_at is not None or self.cut_at is not None


class GroupController:
    """Makes `group` of `compute` true. `boot(name, template)` switches a VM on; `clock` gives the group's seconds."""

    def __init__(
        self,
        compute: ComputeServer,
        group: InstanceGroup,
        template: Template,
        boot: Callable[[str, Template], GroupVm],
        *,
        clock: Callable[[], float],
        policy: Policy | None = None,
        zone: Zone | None = None,
    ) -> None:
        self.template = template
        """What the next VM is made from that is not a repair; set it to roll out another one."""
        self.policy, self.zone = policy or Policy(), zone or Zone()
        self._compute, self._group, self._boot, self._clock = compute, group, boot, clock
        self._instances: dict[str, _Instance] = {}

    def vm(self, index: int = 0) -> GroupVm | None:
        """The VM at that place of the group, None while there is none."""
        instances = list(self._instances.values())
        return instances[index].vm if index < len(instances) else None

    @property
    def calm(self) -> bool:
        """Whether nothing is on its way: every VM there is has been healthy, still is, and stays."""
        return all(
            one.vm is None or (one.was_healthy and not one.failures and not one.going and one.vm.is_running())
            for one in self._instances.values()
        )

    def preempt(self, index: int = 0, *, notice_s: float | None = None) -> bool:
        """Compute Engine takes the VM away: notice, ACPI G2 after `notice_s` (the template's), ACPI G3.

        False where there is no VM at that place, or one that is going already."""
        one = self._at(index)
        if one is None or one.vm is None or one.going:
            return False
        one.vm.give_notice()
        one.button_at = self._clock() + (one.template.notice_s if notice_s is None else notice_s)
        self._go(one, self._clock())
        return True

    def cut_power(self, index: int = 0) -> bool:
        """The host is gone, without a word. False where there is no VM at that place."""
        one = self._at(index)
        if one is None or one.vm is None:
            return False
        one.vm.cut_power()
        return True

    def lose_zone(self, seconds: float) -> None:
        """All VMs are gone at once, and there is no room for others for so long."""
        for index in range(len(self._instances)):
            self.cut_power(index)
        self.exhaust(seconds)

    def exhaust(self, seconds: float) -> None:
        """A stock-out: what runs goes on, what is to boot does not for so long."""
        self.zone.exhausted_until = max(self.zone.exhausted_until, self._clock() + seconds)

    def step(self) -> None:
        """Look at everything once and do what is due."""
        now = self._clock()
        self._size()
        for one in list(self._instances.values()):
            if one.vm is None:
                continue
            if one.going:
                self._go(one, now)
            if not one.vm.is_running():
                self._gone(one)
            elif not one.going:
                self._check(one, now)
        self._create(now)

    def close(self) -> None:
        """Cut the power of all VMs."""
        for one in self._instances.values():
            if one.vm is not None:
                one.vm.cut_power()

    # --- what is wanted ---

    def _size(self) -> None:
        staying = [one for one in self._instances.values() if not one.leaving]
        wanted = self._group.target_size
        for one in reversed(staying[wanted:]):
            one.leaving = True
            self._show(one, action="DELETING")
            self._stop(one)
        for number in range(len(self._instances) + wanted):
            if len([one for one in self._instances.values() if not one.leaving]) >= wanted:
                break
            name = f"{self._group.base_name}-{number:04d}"
            if name not in self._instances:
                self._instances[name] = one = _Instance(name, self.template, ManagedInstance(name))
                self._compute.change(partial(self._group.instances.__setitem__, name, one.shown))
        for name in list(self._group.recreate):
            self._compute.change(partial(self._group.recreate.remove, name))
            self._repair(self._instances[name])

    def _repair(self, one: _Instance) -> None:
        """Stop it; what is gone is made anew."""
        if not one.leaving and not one.going:
            self._show(one, action="RECREATING")
            self._stop(one)

    def _stop(self, one: _Instance) -> None:
        if one.vm is None:
            if one.leaving:
                self._forget(one)
        elif not one.going:
            one.button_at = self._clock()
            self._go(one, one.button_at)

    # --- what happens to VMs ---

    def _go(self, one: _Instance, now: float) -> None:
        """Power button and power cut, each at its time."""
        assert one.vm is not None
        if one.button_at is not None and now >= one.button_at:
            one.vm.press_power_button()
            one.cut_at, one.button_at = one.button_at + self.policy.shutdown_s, None
            self._show(one, status="STOPPING")
        if one.cut_at is not None and now >= one.cut_at:
            one.vm.cut_power()

    def _gone(self, one: _Instance) -> None:
        assert one.vm is not None
        one.vm.cut_power()  # what is left of it
        one.vm, one.button_at, one.cut_at = None, None, None
        one.was_healthy, one.failures, one.new = False, 0, False
        if one.leaving:
            self._forget(one)
            return
        if self.policy.update_on_repair:
            one.template = self.template
        self._show(one, status="TERMINATED", action="RECREATING")

    def _check(self, one: _Instance, now: float) -> None:
        assert one.vm is not None
        if now < one.next_check:
            return
        one.next_check = now + self.policy.check_every_s
        if one.vm.is_healthy():
            one.was_healthy, one.failures = True, 0
            self._show(one, action="NONE")
        elif one.was_healthy or now >= one.booted_at + self.policy.initial_delay_s:
            one.failures += 1
            if one.failures >= self.policy.unhealthy_after:
                self._repair(one)

    def _create(self, now: float) -> None:
        missing = [one for one in self._instances.values() if one.vm is None and not one.leaving]
        fresh = [one for one in missing if one.new]
        running = len(self._instances) - len(missing)
        bulk = self.policy.target_size_mode == "BULK"
        for one in missing:
            if now < one.ask_again_at:
                continue
            wanted = len(fresh) if bulk and one.new else 1
            if not self.zone.has_room(running=running, wanted=wanted, now=now):
                self._refuse(one, wanted, now)
                continue
            one.vm = self._boot(one.name, one.template)
            one.booted_at, one.next_check = now, now + self.policy.check_every_s
            running += 1
            if one in fresh:
                fresh.remove(one)
            self._show(one, status="RUNNING", action="VERIFYING", errors=[])

    def _refuse(self, one: _Instance, wanted: int, now: float) -> None:
        one.ask_again_at = now + self.policy.retry_s
        message = f"The zone does not have enough resources available to fulfill the request for {wanted} VM(s)."
        error = {"code": NO_CAPACITY, "message": message}
        item = {
            "error": error,
            "instanceActionDetails": {"action": one.shown.action, "instance": one.name},
            "timestamp": datetime.now(UTC).isoformat(),
        }
        self._compute.change(lambda: self._group.errors.insert(0, item))
        self._show(one, errors=[error])

    def _at(self, index: int) -> _Instance | None:
        instances = list(self._instances.values())
        return instances[index] if index < len(instances) else None

    def _forget(self, one: _Instance) -> None:
        del self._instances[one.name]
        self._compute.change(partial(self._group.instances.__delitem__, one.name))

    def _show(
        self,
        one: _Instance,
        *,
        status: str | None = None,
        action: str | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        def act() -> None:
            one.shown.status = status or one.shown.status
            one.shown.action = action or one.shown.action
            one.shown.errors = one.shown.errors if errors is None else errors

        self._compute.change(act)
