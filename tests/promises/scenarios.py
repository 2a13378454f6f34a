"""Scenarios: every way in which a trainer comes to run, crossed with every kind, cadence and thing that happens to it.

A library picks combinations so that each two values meet at least once. What a scenario does is here; what must hold
at its end is `tests.promises.observer`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from spot_training.protocol.channel import Connection
from spot_training.protocol.messages import Drill, DrillReport

from agent.config import load_run
from agent.config.program import trainer_command
from agent.run.handover import EXIT_HANDED_OVER
from agent.store import Store, open_store
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from infra.local.storage.control import StorageControl
from infra.local.vm import VmError
from tests.promises.logind import PowerButton, power_button
from tests.promises.observer import PATIENCE_S, Observer, journal
from tests.promises.world import ROOT

WINDOW_S = float(os.environ.get("WINDOW_S") or 8.0)  # longer on a machine that is busy with other things
WARNING_S = 4.0
HANG_S = 4.0
FLOOD_S = 1.0
DISK_BYTES = 6_000_000
DESCRIPTORS = 48
ARENAS = {"command": 1}  # and 2 of a session's
SCRIPTS = {
    "script": "update finish",
    "script without update": "finish",
    "script without finish": "update",
    "bare script": "neither",
}
"""With PyTorch and the real library, and what of it they call."""
AXES: dict[str, list[str]] = {
    "way": ["started", "adopted", "adopted while it imports", "handed over", "crashed", "drilled", "stopped"],
    "trainer": [
        "session, 20 steps", "session, 1 s", "session, auto", "command, 1 s", "command, auto", "script, 20 steps",
        "script, 1 s", "script without update, 20 steps", "script without finish, auto", "bare script, 1 s",
    ],
    "what": [
        "notice", "long notice", "button in a notice", "button", "button alone", "sigterm", "crash", "hang", "exit 0",
        "power cut",
        "bucket away", "403 on a part", "403 on the manifest", "damaged newest", "flood", "full disk",
    ],
}  # fmt: skip
SESSION = """
run_id: {run_id}
model: {{config: {{model_type: qwen3}}}}
data: {{source: stdlib, tokenizer: {{train_vocab_size: 512}}}}
training: {{global_batch: 8, micro_batch: 8, max_steps: 100000}}
checkpoint: {{bucket: "gs://demo/runs", every: "{every}", keep: 3}}
machine: {{shutdown_window: "{window} s"}}
supervision: {{hang_timeout: "{hang} s", crash_limit: {crash_limit}, stop_grace: "1 s"}}
"""
COMMAND = """
run_id: {run_id}
workload:
  kind: command
  command: [{python}, -m, tests.promises.counter, {folder}]
  checkpoint_dir: {folder}
checkpoint: {{bucket: "gs://demo/runs", every: "{every}", keep: 3}}
machine: {{shutdown_window: "{window} s"}}
supervision: {{hang_timeout: "{hang} s", crash_limit: {crash_limit}, stop_grace: "1 s"}}
"""
SCRIPT = """
run_id: {run_id}
workload: {{kind: script, command: [python, -m, tests.promises.script, {calls}]}}
checkpoint: {{bucket: "gs://demo/runs", every: "{every}", keep: 3}}
machine: {{shutdown_window: "{window} s"}}
supervision: {{hang_timeout: "{hang} s", crash_limit: {crash_limit}, stop_grace: "1 s"}}
"""


@dataclass(frozen=True)
class Scenario:
    way: str
    kind: str
    every: str
    what: str

    def __str__(self) -> str:
        return f"{self.way}, {self.kind}, {self.every}: {self.what}".replace(" ", "_")


@dataclass
class Stage:
    """One run, its fleet and its observer, in `folder`."""

    kind: str
    fleet: Fleet
    observer: Observer
    storage: StorageControl
    folder: Path
    store: Store
    power: PowerButton | None  # where there is a message bus to have one on
    since: float = field(default_factory=time.time)

    @property
    def tmp(self) -> Path:
        return self.fleet.out / "tmp"

    def kill_agent(self) -> None:
        self.fleet.vm.process.kill()
        self.next_agent()

    def next_agent(self) -> None:
        """systemd starts the agent again, and it is up."""
        since = time.monotonic()
        self.fleet.restart_agent()
        self.fleet.wait_event("trainer_adopted", timeout=PATIENCE_S, since=since)

    def press_power_button(self, *, preempted: bool = False) -> float:
        """ACPI G2: logind says so, waits for who holds the shutdown back, and systemd stops its units then.
        `preempted`: the metadata server says so too, a little later."""
        vm = self.fleet.vm
        vm.button_at = begun = time.monotonic()
        if self.power:
            self.power.press(vm.press_power_button, delay_max_s=WINDOW_S)
        else:
            vm.press_power_button()
        if preempted:
            vm.give_notice()
        if self.power is None:
            return begun
        absent = [event for event in self.fleet.events if event.name == "logind_absent"]
        assert not absent, f"the agent could not talk to logind: {absent[0].values}"
        with contextlib.suppress(VmError):
            self.fleet.wait_event("notice", timeout=2.0, since=begun, where=lambda values: values["source"] == "logind")
            return begun
        assert not vm.is_running(), f"the agent did not hear logind:\n{journal(self.fleet)}"
        return begun

    def arenas(self) -> dict[int, set[int]]:
        """The shared memory of the present VM: which processes have which arena."""
        found: dict[int, set[int]] = {}
        for process in self.fleet.vm.processes():
            for fd in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(fd.readlink()).startswith("/memfd:spot-arena"):
                        found.setdefault(fd.stat().st_ino, set()).add(process.pid)
        return found

    def descriptors(self) -> int:
        """What the present agent has open."""
        return psutil.Process(self.fleet.vm.process.pid).num_fds()

    def end_at(self, step: int) -> None:
        """Training is over at `step`."""
        part = self.folder / "end.part"
        part.write_text(str(step))
        part.rename(self.folder / "end")

    def back(self) -> None:
        """The next VM, with an empty disk."""
        self.since = time.time()
        if self.kind == "command":
            subprocess.run(["rm", "-rf", str(self.folder / "saves")], check=True)
        self.fleet.recreate()

    def stop(self) -> None:
        """An operator's stop, and the next start."""
        self.fleet.press_power_button()
        self.fleet.wait_off(WINDOW_S)
        self.back()


@contextlib.contextmanager
def stage(
    storage: StorageControl,
    folder: Path,
    *,
    kind: str,
    every: str,
    name: str,
    crash_limit: int = 3,
    hang_s: float = HANG_S,
) -> Iterator[Stage]:
    """`name`: of the run."""
    run_file, saves = folder / "run.yaml", folder / "saves"
    text = {"session": SESSION, "command": COMMAND}.get(kind, SCRIPT)
    run_file.write_text(
        text.format(
            run_id=name,
            every=every,
            window=WINDOW_S,
            hang=hang_s,
            python=sys.executable,
            folder=saves,
            crash_limit=crash_limit,
            calls=", ".join(SCRIPTS.get(kind, "").split()),
        )
    )
    out = folder / "out"
    (out / "tmp").mkdir(parents=True)
    trainer = [sys.executable, "-m", "tests.promises.light"]
    if kind != "session":
        trainer = trainer_command(load_run(run_file), run_file)
    env = {
        "PYTHONPATH": str(ROOT), "TMPDIR": str(out / "tmp"), "LIGHT_TRUTH": str(folder / "truth"),
        "LIGHT_END": str(folder / "end"), "LIGHT_FLOOD": str(folder / "flood"),
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.promises.agent_with", str(run_file), *trainer]
    with (
        tempfile.TemporaryDirectory(prefix="bus-") as bus,  # a socket's path is short
        power_button(Path(bus)) as power,
        Fleet(name, command, out, storage, env, boot_delay_s=0.0) as fleet,
    ):
        if power:
            fleet.env["DBUS_SYSTEM_BUS_ADDRESS"] = power.address
        store = open_store(f"gs://demo/runs/{name}")
        observer = Observer("script" if kind in SCRIPTS else kind, store, folder / "truth", storage, WINDOW_S)
        yield Stage(kind, fleet, observer, storage, folder, store, power)


# --- ways in: at the end a trainer trains, under an agent that came to it in this way ---


def _first(on: Stage) -> None:
    on.since = time.time()
    on.fleet.boot()
    on.observer.wait_told(on.fleet, "restored", since=on.since)
    on.observer.wait_step(on.fleet, on.observer.reached() + 5)


def way_in(on: Stage, way: str) -> None:
    _first(on)
    on.since = time.time()
    match way:
        case "adopted":
            on.kill_agent()
        case "adopted while it imports":
            on.fleet.env["LIGHT_IMPORT_S"] = "1.5"
            on.stop()
            on.fleet.wait_event("trainer_started", timeout=PATIENCE_S, since=on.fleet.vm.started)
            on.kill_agent()
            on.fleet.env["LIGHT_IMPORT_S"] = "0"
            on.observer.wait_told(on.fleet, "restored", since=on.since)
        case "handed over":
            on.fleet.vm.process.send_signal(signal.SIGHUP)
            assert on.fleet.vm.process.wait(PATIENCE_S) == EXIT_HANDED_OVER
            on.next_agent()
        case "crashed":
            assert on.fleet.vm.kill_trainer()
            on.observer.wait_told(on.fleet, "restored", since=on.since)
        case "drilled":
            connection = Connection.open(on.fleet.vm.disk / "agent.sock", timeout=5.0)
            connection.send(Drill())
            report, _ = connection.receive(timeout=WINDOW_S)
            connection.close()
            assert isinstance(report, DrillReport)
            assert not report.error, report.error
        case "stopped":
            on.stop()
            on.observer.wait_told(on.fleet, "restored", since=on.since)
    on.observer.wait_step(on.fleet, on.observer.reached() + 5)


# --- what happens ---


@dataclass(frozen=True)
class Expected:
    """`kind`: of the record there must be; `gone`: the VM is; `safe`: nothing at all may be lost."""

    kind: str | None
    gone: bool = True
    safe: bool = True


def _leave(on: Stage, *, within: float, begun: float) -> None:
    """The agent ends by itself, within the window; then the power is cut."""
    down = on.fleet.vm.wait_down(within + 1.0)
    took = time.monotonic() - begun
    on.fleet.cut_power()
    assert down and took <= within, f"the window was {within:.0f} s, the agent took {took:.1f} s:\n{journal(on.fleet)}"


def _notice(on: Stage) -> Expected:
    begun = on.fleet.give_notice()
    on.fleet.press_power_button()
    _leave(on, within=WINDOW_S, begun=begun)
    return Expected("preempted")


def _long_notice(on: Stage) -> Expected:
    begun = on.fleet.give_notice()
    on.fleet.vm.wait_down(WARNING_S)
    on.fleet.press_power_button()
    _leave(on, within=WARNING_S + WINDOW_S, begun=begun)
    return Expected("preempted")


def _button_in_a_notice(on: Stage) -> Expected:
    on.fleet.give_notice()
    time.sleep(WARNING_S / 4)
    _leave(on, within=WINDOW_S, begun=on.press_power_button())
    return Expected("preempted")


def _button(on: Stage) -> Expected:
    _leave(on, within=WINDOW_S, begun=on.press_power_button(preempted=True))
    return Expected("preempted")


def _button_alone(on: Stage) -> Expected:
    _leave(on, within=WINDOW_S, begun=on.press_power_button())
    return Expected("operator_stop")


def _sigterm(on: Stage) -> Expected:
    _leave(on, within=WINDOW_S, begun=on.fleet.press_power_button())
    return Expected("operator_stop")


def _crash(on: Stage) -> Expected:
    assert on.fleet.vm.kill_trainer()
    return Expected("crash", gone=False, safe=False)


def _hang(on: Stage) -> Expected:
    on.fleet.vm.trainer().send_signal(signal.SIGSTOP)
    return Expected("hang", gone=False, safe=False)


def _exit_0(on: Stage) -> Expected:
    return Expected(None, gone=False)


def _power_cut(on: Stage) -> Expected:
    on.fleet.cut_power()
    return Expected(None, safe=False)


def _bucket_away(on: Stage) -> Expected:
    on.storage.outage(seconds=2.0)
    return _notice(on)


def _403_on_a_part(on: Stage) -> Expected:
    on.storage.fault("status", status=403, action="create", name=f"{on.fleet.name}/rolling/.*part-")
    return _notice(on)


def _403_on_the_manifest(on: Stage) -> Expected:
    on.storage.fault("status", status=403, action="create", name=f"{on.fleet.name}/rolling/.*manifest")
    return _notice(on)


def _flood(on: Stage) -> Expected:
    (on.folder / "flood").touch()
    time.sleep(FLOOD_S)
    expected = _notice(on)
    (on.folder / "flood").unlink()
    return expected


def _full_disk(on: Stage) -> Expected:
    filler = on.fleet.out / "vms" / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 14))
            file.flush()
    expected = _notice(on)
    filler.unlink()
    return expected


HAPPENINGS: dict[str, Callable[[Stage], Expected]] = {
    "notice": _notice,
    "long notice": _long_notice,
    "button in a notice": _button_in_a_notice,
    "button": _button,
    "button alone": _button_alone,
    "sigterm": _sigterm,
    "crash": _crash,
    "hang": _hang,
    "exit 0": _exit_0,
    "power cut": _power_cut,
    "bucket away": _bucket_away,
    "403 on a part": _403_on_a_part,
    "403 on the manifest": _403_on_the_manifest,
    "damaged newest": _notice,
    "flood": _flood,
    "full disk": _full_disk,
}


def damage_the_newest(on: Stage) -> None:
    """Before the way in: the bucket's newest checkpoint can't be read, and is far ahead of the one before it."""
    _first(on)
    for _ in range(2):
        on.stop()
        on.observer.wait_told(on.fleet, "restored", since=on.since)
        on.observer.wait_step(on.fleet, on.observer.reached() + 40)
    on.fleet.press_power_button()
    on.fleet.wait_off(WINDOW_S)
    folder = on.observer.newest_folder()
    on.observer.damage(folder)
    on.fleet.env["LIGHT_STEP_S"] = "0.1"
    if on.kind == "command":
        subprocess.run(["rm", "-rf", str(on.folder / "saves")], check=True)


@contextlib.contextmanager
def small_disk(on: Stage) -> Iterator[None]:
    """The VMs' disks are one small file system. Needs root."""
    vms = on.fleet.out / "vms"
    vms.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(vms)], check=True)
    try:
        yield
    finally:
        on.fleet.close()
        subprocess.run(["umount", "--lazy", str(vms)], check=True)


def play(on: Stage, scenario: Scenario) -> None:
    """All of it, to the end of the run, and what must hold then."""
    fleet, observer = on.fleet, on.observer
    if scenario.what in ("long notice", "button in a notice"):
        fleet.attributes["spot-notice"] = f"{WARNING_S} s"
        observer.warning_s = WARNING_S
    if scenario.way == "handed over":
        fleet.env["NOTIFY_SOCKET"] = f"@{fleet.name}"
    if scenario.what == "damaged newest":
        damage_the_newest(on)
    way_in(on, scenario.way)
    if scenario.every != "auto" and scenario.what != "damaged newest":
        observer.wait_commit(fleet, past=observer.look())
        observer.wait_step(fleet, observer.reached() + 3)
    observer.look()
    trainer = observer.newest()
    before = observer.reached(trainer)
    on.since = time.time()
    expected = HAPPENINGS[scenario.what](on)
    kept = observer.look()
    if expected.gone:
        assert not expected.safe or kept >= before, (
            f"step {before} was done when it happened, {kept} was kept:\n{journal(fleet)}"
        )
        fleet.env["LIGHT_STEP_S"] = "0.01"
        on.back()
    if scenario.what != "exit 0":
        observer.wait_told(fleet, "restored", since=on.since)
    end = observer.reached() + 15
    assert len(on.arenas()) <= ARENAS.get(on.kind, 2), f"arenas that nobody needs any more: {on.arenas()}"
    assert (open_now := on.descriptors()) <= DESCRIPTORS, f"{open_now} descriptors are open"
    on.end_at(end)
    assert fleet.vm.wait_down(PATIENCE_S), f"the run did not end:\n{journal(fleet)}"
    assert fleet.vm.process.returncode == 0, f"status {fleet.vm.process.returncode}:\n{journal(fleet)}"
    observer.verdict(fleet, end=end)
    if expected.kind:
        told_of(on, expected, trainer=trainer)


def told_of(on: Stage, expected: Expected, *, trainer: int) -> None:
    """The record of what happened is there, once, and says what was lost."""
    incidents = [one for one in RunRecords(on.store).records() if one["record"] == "incident"]
    found = [one for one in incidents if one["kind"] == expected.kind]
    assert found, f"no record of kind {expected.kind}: {[one['kind'] for one in incidents]}"
    if on.kind != "command":
        lost, told = on.observer.lost(trainer), found[-1]["steps_lost"]
        assert told is None or abs(told - lost) <= (0 if expected.safe else 1), (
            f"{lost} steps were trained twice, the record says {told}"
        )
        assert not expected.safe or lost == 0, f"{lost} steps were trained twice:\n{journal(on.fleet)}"


def combinations() -> list[Scenario]:
    """Each two values of two axes meet in at least one of them; always the same ones."""
    import allpairspy

    def fits(row: list[Any]) -> bool:
        values = dict(zip(AXES, row, strict=False))
        return not (values.get("trainer", "").startswith("command") and values.get("what") == "hang")  # none can tell

    rows = allpairspy.AllPairs(list(AXES.values()), filter_func=fits)
    found = []
    for way, trainer, what in rows:
        kind, every = trainer.split(", ")
        found.append(Scenario(way, kind, every, what))
    return found
