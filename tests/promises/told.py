"""What the records tell, held against what the trainers, the bucket's server and the rig saw of it themselves.

One function that every scenario calls, `compare`. What a record does not know it may say (None); what it says is true,
within CLOSE_S: the machine that plays all this is shared and busy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.checkpoint.line import Line
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from infra.local.storage.control import StorageControl
from infra.local.vm import Vm

if TYPE_CHECKING:
    from tests.promises.observer import Observer, Told

CLOSE_S = 0.8
_CALL_S = 10.0
_START_S = 3.0  # from the agent's start of a program to its first word
_WINDOWS = ("preempted", "operator_stop")
_FAILURES = ("crash", "hang", "out_of_memory")
_OFFSET_S = time.time() - time.monotonic()
"""From the monotonic seconds of the agents' records, which are this machine's, to Unix seconds."""


@dataclass(frozen=True)
class Life:
    """One trainer, by its own lines."""

    lines: list[Told]

    @property
    def started(self) -> float:
        return self.lines[0].at

    @property
    def last(self) -> float:
        return self.lines[-1].at

    @property
    def restored(self) -> Told | None:
        return next((one for one in self.lines if one.what == "restored"), None)

    @property
    def trains_on(self) -> bool:
        return any(one.what == "trained" for one in self.lines)

    def reached(self, at: float = float("inf")) -> int:
        """Steps done by `at`."""
        return max((one.step for one in self.lines if one.what in ("trained", "restored") and one.at <= at), default=0)

    def passed(self, step: int) -> float | None:
        """When it had done `step` steps."""
        return next((o.at for o in self.lines if o.what in ("trained", "restored") and o.step == step), None)


def lives(observer: Observer) -> list[Life]:
    """In the order in which they were started."""
    by_pid: dict[tuple[str, int], list[Told]] = {}
    for one in observer.told():
        by_pid.setdefault((one.vm, one.pid), []).append(one)
    return sorted((Life(lines) for lines in by_pid.values()), key=lambda life: life.started)


def compare(observer: Observer, fleet: Fleet, storage: StorageControl) -> None:
    """AssertionError where a record, or an event of the journal, is not what happened."""
    everybody = lives(observer)
    commits = _commits(storage, fleet.name)
    vms = _vms(observer, fleet)
    for record in RunRecords(observer.store).records():
        on_vm = [life for life in everybody if life.lines[0].vm == vms.get(record["attempt"])]
        at = record["at"] + _OFFSET_S
        if record["record"] == "resume":
            _resume(record, at, on_vm)
            continue
        gone = at + record["phases_s"].get("trainer_gone", 0.0)
        mine = [life for life in on_vm if life.started <= gone]
        if mine and record["kind"] in (*_WINDOWS, *_FAILURES):
            _moments(record, at, mine[-1], commits)
            until = at if record["kind"] in _FAILURES else gone  # what stood still did no work
            _losses(record, until, mine[-1], everybody, observer)
    for vm in fleet.vms:
        _time_left(vm, fleet, observer)


def _vms(observer: Observer, fleet: Fleet) -> dict[int, str]:
    """Which boot of a VM made which attempt, by the line and by the name that each boot gave itself."""
    marks = {path.read_text(): vm.mark for vm in fleet.vms if (path := vm.disk / "claimant").exists()}
    claims = [entry for entry in Line(observer.store).entries(timeout=_CALL_S) if entry.kind == "claim"]
    return {entry.attempt: marks[entry.claimant] for entry in claims if entry.claimant in marks}


def _commits(storage: StorageControl, run: str) -> list[float]:
    """When the bucket's server took entries of the run's line: a commit is one."""
    return [
        seen.at + seen.seconds
        for seen in storage.requests()
        if seen.name.startswith(f"runs/{run}/line/") and seen.action == "create" and seen.status == 200
    ]


def _near(told: float, seen: list[float], what: str, record: dict[str, Any]) -> None:
    apart = min((abs(told - at) for at in seen), default=float("inf"))
    assert apart <= CLOSE_S, f"{what}: told {apart:.2f} s away from when it was seen: {record}"


def _resume(record: dict[str, Any], at: float, on_vm: list[Life]) -> None:
    phases = record["phases_s"]
    order = [phases[name] for name in ("claimed", "connected", "restored", "first_step") if name in phases]
    assert order == sorted(order), f"not in the order in which they happen: {record}"
    back = [life.restored for life in on_vm if life.restored and life.restored.at >= at - CLOSE_S]
    assert back, f"nobody came back: {record}"
    assert record["step"] in {one.step for one in back}, f"came back at {[one.step for one in back]}: {record}"
    if "restored" in phases:
        _near(at + phases["restored"], [one.at for one in back], "restored", record)


def _moments(record: dict[str, Any], at: float, life: Life, commits: list[float]) -> None:
    phases = record["phases_s"]
    if record["kind"] in _FAILURES:
        assert life.last <= at + CLOSE_S, f"it trained on after it had ended: {record}"
        return
    if "trainer_gone" in phases:
        assert life.last <= at + phases["trainer_gone"] + 0.1, f"it trained on when it was gone: {record}"
    for prefix in ("", "last_"):
        order = [phases[prefix + name] for name in ("save_requested", "staged", "committed") if prefix + name in phases]
        assert order == sorted(order), f"not in the order in which they happen: {record}"
        if f"{prefix}committed" in phases:
            _near(at + phases[f"{prefix}committed"], commits, f"{prefix}committed", record)
        if f"{prefix}staged" in phases and (staged := [one.at for one in life.lines if one.what == "staged"]):
            _near(at + phases[f"{prefix}staged"], staged, f"{prefix}staged", record)


def _losses(record: dict[str, Any], gone: float, life: Life, everybody: list[Life], observer: Observer) -> None:
    """What was lost is what the next trainer began before, in steps and in seconds."""
    steps, seconds = record["steps_lost"], record["seconds_lost"]
    if observer.kind == "command":
        assert steps is None, f"nobody counts a program's steps: {record}"
    later = [other for other in everybody if other.started > life.started and other.restored]
    if not life.restored or not later or any(life.started < when < later[0].started for when in observer.damaged_at):
        return
    back = later[0].restored
    assert back
    same_vm = back.vm == life.lines[0].vm
    lost = life.reached(gone) - back.step
    if steps is not None:
        more = record["kind"] in _FAILURES and not same_vm  # the VM, and what was still to be committed, went too
        assert abs(steps - lost) <= 1 or (more and steps < lost), f"{lost} steps were trained twice: {record}"
    if seconds is None or (record["kind"] in _FAILURES and not same_vm):
        return
    began = _had(back.step, life, observer)
    assert began is not None, f"{seconds} s lost since a state that it never had: {record}"
    true = max(0.0, gone - began)
    above = CLOSE_S + (_START_S if began == life.started else 0.0)
    assert true - CLOSE_S <= seconds <= true + above, f"{true:.2f} s of work were lost: {record}"


def _had(step: int, life: Life, observer: Observer) -> float | None:
    """When the trainer had done what is safe: for a program, since when that is what it had saved."""
    if observer.kind != "command":
        return life.passed(step)
    saved = [one.at for one in life.lines if one.what == "saved" and one.step == step]
    began = life.started if life.restored and life.restored.step == step else None
    return saved[0] if saved else began


def _time_left(vm: Vm, fleet: Fleet, observer: Observer) -> None:
    """`left_s` is what was left until the power would have been cut, less a tenth of the shutdown for safety."""
    said = [event for event in fleet.events if event.boot == vm.boot]
    used = [event for event in said if event.name == "window_used"]
    heard = [event.at for event in said if event.name == "notice" and event.values.get("source") != "drill"]
    cuts = [(vm.notice_at, observer.warning_s), (vm.button_at, 0.0)]
    known = [(at, warning) for at, warning in cuts if at is not None and (not used or at < used[0].at)]
    if not used or not known:
        return
    cut = min(at + warning + observer.window_s for at, warning in known)
    left, told = cut - used[0].at, used[0].values["left_s"]
    assert told >= max(0.0, left - 0.1 * observer.window_s) - CLOSE_S, f"{left:.1f} s were left, {told} told"
    if heard and heard[0] <= min(at for at, _ in known) + CLOSE_S:  # else it was told while there was no agent
        assert told <= max(0.0, left) + CLOSE_S, f"{left:.1f} s were left, {told} told"
