"""Who knows the truth: what the trainers did, as they wrote it down themselves, and what the bucket held, and when.

It asks neither the journal nor the agent. `Observer.verdict` holds the invariants that every scenario ends with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.checkpoint.line import Line, LineEntry
from agent.checkpoint.listing import read_listing
from agent.checkpoint.manifest import parse_manifest
from agent.store import NotFound, Store
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from infra.local.storage.control import StorageControl
from infra.local.vm import VmError
from tests.promises import counter, light, script
from tests.promises.told import compare

_CALL_S = 10.0
PATIENCE_S = 60.0  # on a machine that is busy with other things
_LEFT_BY_US = {
    "agent.log",
    "metrics.jsonl",
    "claimant",
    "trainer.log",
    "trainer.exit",
    "trainer.exit.tmp",  # of a full disk
    "trainer.told",
    "trainer-run.json",  # what the run file said when it was started
    "said.json",  # what a program has called saved, and its steps
}  # the journal, this boot's name, last words


@dataclass(frozen=True)
class Told:
    """One line of a trainer's: `at` is Unix seconds."""

    at: float
    vm: str
    pid: int
    what: str
    step: int
    detail: str


@dataclass
class Observer:
    """Watches one run. `kind` is session (`tests.promises.light`) or command (`tests.promises.counter`).

    `warning_s`: how long before the machine shuts down a preemption is told; `window_s`: from then to the power cut.
    """

    kind: str
    store: Store
    truth: Path
    storage: StorageControl
    window_s: float
    warning_s: float = 0.0
    damaged: set[str] = field(default_factory=set)  # folders that somebody has made unreadable
    damaged_at: list[float] = field(default_factory=list)
    _progress: dict[str, int] = field(default_factory=dict)
    _looks: list[tuple[float, set[str]]] = field(default_factory=list)

    # --- the trainers ---

    def told(self) -> list[Told]:
        lines = self.truth.read_text().splitlines() if self.truth.exists() else []
        split = [line.split() for line in lines]
        return [Told(float(at), vm, int(pid), what, int(step), detail) for at, vm, pid, what, step, detail in split]

    def reached(self, pid: int | None = None) -> int:
        """The last step that a trainer (the newest one, without `pid`) has done."""
        lines = self.told()
        pid = self.newest() if pid is None else pid
        return max((one.step for one in lines if one.pid == pid and one.what in ("trained", "restored")), default=0)

    def newest(self) -> int:
        """The trainer that was started last; 0 before the first."""
        return next((one.pid for one in reversed(self.told()) if one.what == "started"), 0)

    def furthest(self) -> int:
        """The most steps that any trainer has done."""
        return max((one.step for one in self.told() if one.what in ("trained", "restored")), default=0)

    def wait_step(self, fleet: Fleet, step: int, *, timeout: float = PATIENCE_S) -> None:
        """Wait until `step` steps are done by the present trainer."""
        self._wait(fleet, lambda: self.reached() >= step, f"step {step} done", timeout)

    def wait_told(self, fleet: Fleet, what: str, *, since: float, timeout: float = PATIENCE_S) -> Told:
        """The first line `what` after `since` (Unix seconds)."""

        def found() -> list[Told]:
            return [one for one in self.told() if one.what == what and one.at >= since]

        self._wait(fleet, lambda: bool(found()), f"trainer that {what}", timeout)
        return found()[0]

    def wait_commit(self, fleet: Fleet, *, past: int, timeout: float = PATIENCE_S) -> None:
        """Wait until the bucket holds more than `past` steps."""
        self._wait(fleet, lambda: self.look() > past, f"commit past step {past}", timeout)

    def _wait(self, fleet: Fleet, condition: Any, what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise VmError(f"no {what} within {timeout:.0f} s; the journal's end:\n{journal(fleet)}")
            time.sleep(0.05)

    # --- the bucket ---

    def look(self) -> int:
        """The most steps that a checkpoint of the run's line holds now; what is restored later is measured by it.

        Each checkpoint is read when it is first seen, and must be whole.
        """
        at = time.time()
        folders = self.whole() | ({*self._manifests("milestones/")} - self.damaged)
        for folder in folders - set(self._progress):
            try:
                self._progress[folder] = self._read(folder)
            except NotFound:  # retired while we read
                continue
        best = max((self._progress[folder] for folder in folders if folder in self._progress), default=0)
        self._looks.append((at, folders))
        return best

    def _line(self) -> list[str]:
        """What the run's line names: a manifest that it does not is no checkpoint of the run."""
        first = self.store.list("line/", timeout=_CALL_S, limit=1)
        return json.loads(self.store.read(first[0].name, timeout=_CALL_S))["checkpoints"] if first else []

    def whole(self) -> set[str]:
        """The checkpoints of the line that can be read."""
        return ({*self._line()} & {*self._manifests("rolling/")}) - self.damaged

    def damage(self, folder: str) -> None:
        """One of its parts can't be read any more."""
        names = [one.name for one in self.store.list(folder + "/", timeout=_CALL_S)]
        part = next(name for name in names if not name.endswith(".json"))
        bucket, _, prefix = self.store.url.removeprefix("gs://").partition("/")
        self.damaged.add(folder)
        self.storage.corrupt(bucket, f"{prefix}/{part}")
        self.damaged_at.append(time.time())

    def newest_folder(self) -> str:
        """The folder of the checkpoint that holds the most."""
        self.look()
        return max(self.whole(), key=lambda folder: self._progress.get(folder, -1))

    def _manifests(self, prefix: str) -> Iterator[str]:
        for stored in self.store.list(prefix, timeout=_CALL_S):
            if stored.name.endswith("/manifest.json"):
                yield stored.name.removesuffix("/manifest.json")

    def _read(self, folder: str) -> int:
        """What it holds, in steps. AssertionError where it is not whole."""
        manifest = json.loads(self.store.read(f"{folder}/manifest.json", timeout=_CALL_S))
        (rank,) = manifest["ranks"]
        data = bytearray(rank["size"])
        for part in rank["parts"]:
            data[part["offset"] : part["offset"] + part["size"]] = self.store.read(part["name"], timeout=_CALL_S)
        if self.kind != "command":
            step = int(manifest["step"])
            if self.kind == "script":  # what is in there, the script says that restores it
                return step
            assert data == light.expand(light.expected(step)), f"{folder} does not hold the state of step {step}"
            return step
        listing = read_listing(self.store, parse_manifest(json.dumps(manifest).encode(), where=folder), timeout=_CALL_S)
        files = {
            path: b"".join(data[each.at : each.at + each.size] for each in extents)
            for path, extents in listing.extents.items()
        }
        count = int(files["deep/count"])
        assert files["big"] == counter.content(count), f"{folder} holds files that do not belong together"
        return count

    # --- the verdict ---

    def verdict(self, fleet: Fleet, *, end: int) -> None:
        """What must hold once the run is over, whatever was done to it."""
        self.look()
        self._nothing_committed_was_lost()
        self._what_was_restored_was_whole()
        self._result_is_the_uninterrupted_runs(end)
        self._one_line_never_two()
        self._records_tell_what_happened(fleet)
        _nothing_is_left(fleet)

    def restores(self) -> list[tuple[Told, float]]:
        """Each restore, and when its trainer was started."""
        lines = self.told()
        started = {one.pid: one.at for one in lines if one.what == "started"}
        return [(one, started[one.pid]) for one in lines if one.what == "restored"]

    def _nothing_committed_was_lost(self) -> None:
        for restored, started in self.restores():
            held = {folder for at, folders in self._looks if at < started for folder in folders} - self.damaged
            floor = max((self._progress.get(folder, 0) for folder in held), default=0)
            assert restored.step >= floor, (
                f"{restored.vm} began at step {restored.step}, the bucket had held step {floor} before it was started"
            )

    def _what_was_restored_was_whole(self) -> None:
        for restored, _ in self.restores():
            if self.kind == "script":
                known = script.uninterrupted(restored.step)[restored.step][0]
                assert restored.detail == known, f"restored step {restored.step} is wrong"
            elif self.kind == "session":
                assert restored.detail == light.expected(restored.step).hex(), f"restored step {restored.step} is wrong"
            else:
                assert restored.detail == "whole" or not restored.step, f"restored count {restored.step} is torn"

    def _result_is_the_uninterrupted_runs(self, end: int) -> None:
        records = RunRecords(self.store)
        result = records.result()
        finished = [one.step for one in self.told() if one.what == "finished"][-1]
        assert finished >= end
        if self.kind == "script":
            known = script.uninterrupted(finished)
            assert result.get("final", known[finished][0].encode()) == known[finished][0].encode()
            lines = [(line["step"], line["loss"]) for line in records.metrics()]
            assert lines == [(step, loss) for step, (_, loss) in enumerate(known[:finished])]
            return
        if self.kind == "command":
            assert (int(result["deep/count"]), result["big"]) == (finished, counter.content(finished))
            return
        assert result["final.bin"] == light.expected(finished)
        lines = [(line["step"], line["loss"]) for line in records.metrics()]
        assert lines == [(step, light.expected(step + 1)[0]) for step in range(finished)]

    def _one_line_never_two(self) -> None:
        owner: LineEntry | None = None
        for entry in sorted(Line(self.store).entries(timeout=_CALL_S), key=lambda entry: entry.sequence):
            if entry.kind == "claim":
                owner = entry
            assert owner, f"the line begins with {entry}"
            assert (entry.attempt, entry.claimant) == (owner.attempt, owner.claimant), f"past another's claim: {entry}"

    def _records_tell_what_happened(self, fleet: Fleet) -> None:
        compare(self, fleet, self.storage)
        records = RunRecords(self.store).records()
        restores = self.restores()
        if self.kind != "command":
            told = sorted(one["step"] for one in records if one["record"] == "resume")
            seen = sorted(restored.step for restored, _ in restores if self.reached(restored.pid) > restored.step)
            assert set(told) <= set(seen), f"the records tell of returns to {told}, the trainers of {seen}"
        for event in fleet.events:
            assert event.name != "output", f"the agent wrote what is no event: {event.values['message']}"

    def lost(self, pid: int) -> int:
        """Steps that trainer `pid` had done and the next one did again."""
        later = [restored for restored, _ in self.restores() if restored.pid != pid and restored.at > self._last(pid)]
        return max(0, self.reached(pid) - later[0].step) if later else 0

    def _last(self, pid: int) -> float:
        return max(one.at for one in self.told() if one.pid == pid)


def _nothing_is_left(fleet: Fleet) -> None:
    """No process, and so no arena and no descriptor; no file but those that are to be read afterwards."""
    running: list[psutil.Process] = []
    for _ in range(20):
        running = [process for vm in fleet.vms for process in vm.processes()]
        if not running:
            break
        time.sleep(0.1)
    assert not running, f"still running: {[process.cmdline() for process in running]}"
    for vm in fleet.vms:
        names = {path.name for path in vm.disk.iterdir()}
        orderly = vm.off_at is None or vm.went_by_itself
        assert not orderly or names <= _LEFT_BY_US, f"left on the disk of {vm.mark}: {sorted(names - _LEFT_BY_US)}"
    tmp = fleet.vm.disk.parent.parent / "tmp"
    left = sorted(path for path in tmp.rglob("*") if "torchinductor" not in str(path))  # a cache of PyTorch's own
    assert not left, f"left in the folder for such: {left}"


def journal(fleet: Fleet, lines: int = 25) -> str:
    """The last lines of all journals, without the trainer's output."""
    told = [event for event in fleet.events if event.name != "trainer_output"]
    return "\n".join(f"  {event.boot} {json.dumps(event.values)[:400]}" for event in told[-lines:])
