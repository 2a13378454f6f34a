"""A group of small real VMs - a process each, with power button, power cut and health check - on a clock by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from infra.local.compute import ComputeServer
from infra.local.group import GroupController, Policy, Template, Zone

PATH = "projects/p/zones/z/instanceGroupManagers/g"
STUBBORN = "stubborn"  # an attribute: the VM does not go at the power button


@dataclass
class SmallVm:
    name: str
    template: Template
    healthy: bool = True
    noticed: bool = False
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        deaf = "trap '' TERM;" if STUBBORN in self.template.attributes else ""
        self.process = subprocess.Popen(["sh", "-c", f"{deaf} echo; read x"], stdin=-1, stdout=-1)
        assert self.process.stdout
        self.process.stdout.readline()  # it is up, and deaf if it is to be

    def is_running(self) -> bool:
        return self.process.poll() is None

    def is_healthy(self) -> bool:
        return self.healthy

    def give_notice(self) -> None:
        self.noticed = True

    def press_power_button(self) -> None:
        self.process.terminate()
        if STUBBORN not in self.template.attributes:
            self.process.wait(10.0)

    def cut_power(self) -> None:
        self.process.kill()
        self.process.wait(10.0)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()

    def switch_off(self) -> None:
        """As from inside."""
        self.process.kill()
        self.process.wait(10.0)


class World:
    """A group, its API's server (never started: nobody calls it) and all VMs that it ever had."""

    def __init__(self) -> None:
        self.now = 0.0
        self.vms: list[SmallVm] = []
        self.compute = ComputeServer(identify=lambda _: None)
        self.zone = Zone()

    def __call__(self) -> float:
        return self.now

    def boot(self, name: str, template: Template) -> SmallVm:
        self.vms.append(SmallVm(name, template))
        return self.vms[-1]

    def make(
        self,
        *,
        size: int = 1,
        template: Template | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] | None = None,
    ) -> GroupController:
        self.group = self.compute.add_group(PATH, target_size=size)
        self.controller = GroupController(
            self.compute,
            self.group,
            template or Template(),
            self.boot,
            clock=clock or self,
            policy=policy,
            zone=self.zone,
        )
        self.controller.step()
        return self.controller

    def after(self, seconds: float, *, look_every: float = 1.0) -> None:
        """Let time pass, looking at the group as it does."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + look_every)
            self.controller.step()

    @property
    def running(self) -> list[str]:
        return sorted(vm.name for vm in self.vms if vm.is_running())

    def shown(self) -> list[tuple[str, str | None, str]]:
        return [(one.name, one.status, one.action) for one in self.group.instances.values()]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for vm in made.vms:
        vm.cut_power()
