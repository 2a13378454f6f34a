"""Random strikes at running runs, several at once, drawn by a seed: identical, never restored below what was committed.

20 of them by default. `make strikes STRIKES=300 SEED=7 SHARD=1/3`; a run that failed is played again by its seed.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.run.judgement import EXIT_GAVE_UP as SUPERSEDED
from infra.local.storage.control import StorageControl
from infra.local.vm import Vm, VmError
from tests.promises import scenarios
from tests.promises.observer import journal
from tests.promises.scenarios import WINDOW_S, Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PER_RUN = 10
SEED = int(os.environ.get("SEED") or random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(1 << 32))
"""New in every run of pytest, and the same in all its processes."""


def seeds() -> list[int]:
    number, _, of = os.environ.get("SHARD", "1/1").partition("/")
    runs = max(1, int(os.environ.get("STRIKES", "20")) // PER_RUN)
    return [SEED + run for run in range(runs)][int(number) - 1 :: int(of)]


def _kill_trainer(on: Stage, draw: random.Random) -> None:
    on.fleet.vm.kill_trainer()


def _kill_agent(on: Stage, draw: random.Random) -> None:
    on.fleet.vm.process.kill()
    on.fleet.restart_agent()


def _kill_both(on: Stage, draw: random.Random) -> None:
    on.fleet.vm.kill_trainer()
    _kill_agent(on, draw)


def _cut_power(on: Stage, draw: random.Random) -> None:
    on.fleet.cut_power()
    on.back()


def _notice(on: Stage, draw: random.Random) -> None:
    begun = on.fleet.give_notice()
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0.0, 0.5))
        on.fleet.press_power_button()
    assert on.fleet.vm.wait_down(WINDOW_S + 1.0), "the agent outlasted its window"
    assert time.monotonic() - begun <= WINDOW_S + 1.0
    _cut_power(on, draw)


def _stall_agent(on: Stage, draw: random.Random) -> None:
    on.fleet.vm.process.send_signal(signal.SIGSTOP)
    time.sleep(draw.uniform(0.1, 2.0))
    on.fleet.vm.process.send_signal(signal.SIGCONT)


def _stall_trainer(on: Stage, draw: random.Random) -> None:
    try:
        trainer = on.fleet.vm.trainer()
        trainer.suspend()
        time.sleep(draw.uniform(0.1, 2.0))
        trainer.resume()
    except (VmError, psutil.Error):
        return  # there is none just now


def _stall_bucket(on: Stage, draw: random.Random) -> None:
    on.storage.outage("blackhole" if draw.random() < 0.5 else "reset", seconds=draw.uniform(0.1, 2.0))


def _stall_server(on: Stage, draw: random.Random) -> None:
    """The bucket's server itself stands still: connections are open and taken, and nobody answers."""
    port = int(on.storage.url.rpartition(":")[2])
    (server,) = [
        child
        for child in psutil.Process().children()
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in child.net_connections("inet"))
    ]
    server.suspend()
    try:
        time.sleep(draw.uniform(0.1, 2.0))
    finally:
        server.resume()


def _second_vm(on: Stage, draw: random.Random) -> None:
    """Another VM begins with the run while the older one is at it: two agents, one bucket."""
    on.fleet.wait_event("trainer_started", timeout=30.0, since=on.fleet.vm.started)
    on.fleet.boot()


def running(on: Stage) -> list[Vm]:
    return [vm for vm in on.fleet.vms if vm.off_at is None and vm.is_running()]


def follow(on: Stage) -> None:
    """Of two VMs the one that claimed the run last has it: that one is struck next."""
    if not on.fleet.vm.is_running():
        left = running(on)
        assert left, f"the agent gave up:\n{journal(on.fleet)}"
        on.fleet.vms.remove(left[-1])
        on.fleet.vms.append(left[-1])


def _rot(on: Stage, draw: random.Random) -> None:
    """The newest checkpoint can't be read any more, and the VM is gone: an older one has to do."""
    on.fleet.cut_power()
    on.storage.end_outage()
    on.observer.look()
    if len(on.observer.whole()) > 1:  # the last good one is left
        on.observer.damage(on.observer.newest_folder())
    on.back()


STRIKES: list[Callable[[Stage, random.Random], None]] = [
    _kill_trainer, _kill_agent, _kill_both, _cut_power, _notice, _stall_agent, _stall_trainer, _stall_bucket,
    _stall_server, _second_vm, _rot,
]  # fmt: skip


@pytest.mark.parametrize("seed", seeds())
def test_however_a_run_is_struck_nothing_committed_is_lost_and_it_ends_as_if_nothing_had_been(
    shared_storage: StorageControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    print(f"\nSEED={seed} STRIKES={PER_RUN}")
    draw = random.Random(seed)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", shared_storage.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    every = draw.choice(["5 steps", "20 steps", "1 s"])
    name = f"strikes-{uuid.uuid4().hex[:8]}"
    with scenarios.stage(
        shared_storage, tmp_path, kind="session", every=every, name=name, crash_limit=50, hang_s=20.0
    ) as on:
        on.fleet.env["LIGHT_IMPORT_S"] = "0.3"
        on.fleet.boot()
        for number in range(PER_RUN):
            time.sleep(draw.choice([0.0, 0.2, 0.5, 1.0, 2.0]) * draw.random())  # in a start, in a commit, in a step
            follow(on)
            if draw.random() < 0.3:
                draw.choice(STRIKES[:4])(on, draw)  # a second one, at once
            strike = draw.choice(STRIKES)
            print(f"  {number}: {strike.__name__} at step {on.observer.reached()}, every {every}")
            strike(on, draw)
            on.storage.end_outage()
            on.observer.look()
            follow(on)
        end = on.observer.furthest() + 20
        on.end_at(end)
        left = running(on)
        assert all(vm.wait_down(60.0) for vm in left), f"the run did not end:\n{journal(on.fleet)}"
        ended = {vm.process.returncode for vm in left}
        assert 0 in ended, f"nobody finished the run: {ended}\n{journal(on.fleet)}"
        assert ended <= {0, SUPERSEDED}, f"{ended}\n{journal(on.fleet)}"
        on.observer.verdict(on.fleet, end=end)
