"""Replay: a script of events plays on a group of VMs, a week of them in minutes.

Time is real while anything is on its way: a boot, a notice, a window, a bucket that is away. While nothing is, it is
skipped, `speed` seconds for each that passes, but never past the next event: what a VM can notice is never shortened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infra.local.group import GroupController
from infra.local.script import Happening

_LOOK_S = 0.02


class ReplayError(Exception):
    """The run did not come to its end in time."""


class SkippingClock:
    """Seconds since it was made, and those that were skipped."""

    def __init__(self, *, real: Callable[[], float] = time.monotonic) -> None:
        self._real, self._begun = real, real()
        self.skipped = 0.0

    def __call__(self) -> float:
        return self._real() - self._begun + self.skipped

    def skip(self, seconds: float) -> None:
        self.skipped += max(0.0, seconds)


class Doer(Protocol):
    """What is done to the world outside of the group's power."""

    def crash_trainer(self, index: int) -> bool: ...
    def lose_bucket(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Played:
    """What came of one event: `at` is when, in the clock's seconds; `struck`: whether there was a VM to strike."""

    event: Happening
    at: float
    struck: bool


@dataclass
class Replay:
    """Plays `script` on `group`; `is_over` says when the run needs no more VMs."""

    group: GroupController
    script: Sequence[Happening]
    clock: SkippingClock
    doer: Doer
    is_over: Callable[[], bool]
    speed: float = 1.0
    played: list[Played] = field(default_factory=list)
    _busy_until: float = 0.0

    def play(self, *, timeout: float) -> list[Played]:
        """Returns what came of each event. Raises ReplayError after `timeout` real seconds."""
        deadline = time.monotonic() + timeout
        looked = self.clock()
        while not self.is_over():
            if time.monotonic() > deadline:
                left = len(self.script) - len(self.played)
                raise ReplayError(f"not over after {timeout:.0f} s, {left} of {len(self.script)} events to come")
            self.turn(since=looked)
            looked = self.clock()
            time.sleep(_LOOK_S)
        return self.played

    def turn(self, *, since: float) -> None:
        """Do what is due, and skip the time until more is, as far as the time since `since` allows."""
        self.group.step()
        for event in self.script[len(self.played) :]:
            if event.at > self.clock():
                break
            self.played.append(Played(event, self.clock(), self._do(event)))
            self.group.step()
        now = self.clock()
        if self.group.calm and now >= self._busy_until:
            coming = self.script[len(self.played) :][:1]
            most = (now - since) * (self.speed - 1)
            self.clock.skip(min([most, *(event.at - now for event in coming)]))

    def _do(self, event: Happening) -> bool:
        lasting = event.lasting or 0.0
        match event.do:
            case "preempt":
                return self.group.preempt(event.vm, notice_s=event.notice)
            case "power_cut":
                return self.group.cut_power(event.vm)
            case "stock_out":
                self.group.exhaust(lasting)
            case "zone_outage":
                self.group.lose_zone(lasting)
            case "trainer_crash":
                return self.doer.crash_trainer(event.vm)
            case "bucket_away":
                self.doer.lose_bucket(lasting)
                self._busy_until = self.clock() + lasting
        return True
