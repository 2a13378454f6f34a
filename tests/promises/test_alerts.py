"""Each alert is seen to fire and not to fire: its query is evaluated over what real runs told Cloud Logging."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.config import load_run
from infra.local.cloud_logging import CloudLogging
from infra.local.fleet import Fleet
from infra.local.storage.control import running_storage
from infra.stacks.deployment import Deployment
from infra.stacks.observability.alerts import alerts
from infra.stacks.observability.observed import Observed
from tests.cloud.promql import Recorded, holds
from tests.promises.world import World, wait_for_file

pytestmark = pytest.mark.slow

VM = "vm@p.iam.gserviceaccount.com"
PATIENCE_S = 110.0
MINUTE, HOUR = 60.0, 3600.0
RUN = """
run_id: {run_id}
workload: {{kind: command, command: [./train.sh], checkpoint_dir: /var/lib/train}}
checkpoint: {{bucket: "gs://some-bucket/runs", every: 10 min}}
machine: {{type: a2-highgpu-1g}}
cloud: {{project: some-project}}
"""
Entries = list[tuple[float, dict[str, Any]]]


class Told:
    """What one run told Cloud Logging, its first record at 0 s, and the alerts of such a run."""

    def __init__(self, run_id: str, entries: list[dict[str, Any]], folder: Path) -> None:
        first = min(_seconds(entry) for entry in entries)
        self.run_id = run_id
        self.entries: Entries = [(_seconds(entry) - first, entry) for entry in entries]
        run_file = folder / f"{run_id}.yaml"
        run_file.write_text(RUN.format(run_id=run_id))
        made = alerts(Observed.of(Deployment.of(load_run(run_file))))
        self.conditions = {name: (query, one.duration_s) for one in made for name, query in one.conditions}

    def without(self, *names: str) -> Entries:
        return [(at, entry) for at, entry in self.entries if entry["jsonPayload"]["EVENT"] not in names]

    def firing(self, at: float, *, vms: list[tuple[float, int]], entries: Entries | None = None) -> set[str]:
        """Names of the conditions that fire at `at`; `vms`: from when on there were how many."""
        data = Recorded(vms=vms)
        data.note(self.run_id, self.entries if entries is None else entries)
        return {name for name, (query, for_s) in self.conditions.items() if holds(query, data, at, for_s=for_s)}


def _seconds(entry: dict[str, Any]) -> float:
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


def record(world: World, act: Callable[[Fleet], None], **changes: Any) -> Told:
    env = changes.pop("env", {})
    with (
        CloudLogging(identify=lambda token: VM if token else None, writers={VM}) as logging,
        world.fleet(env={"SPOT_LOGGING_URL": logging.url, **env}, **changes) as fleet,
    ):
        act(fleet)
        return Told(fleet.name, logging.entries, world.folder)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_storage() as storage, pytest.MonkeyPatch.context() as monkeypatch:
        storage.create_bucket("demo")
        yield World(storage, tmp_path_factory.mktemp("alerts"), monkeypatch)


@pytest.fixture(scope="module")
def healthy(module_world: World) -> Told:
    """Preempted, back, complete."""

    def act(fleet: Fleet) -> None:
        _train_past_a_commit(fleet)
        fleet.preempt()
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert fleet.wait_off(PATIENCE_S) == 0

    return record(module_world, act, env={"TOY_PAUSE": "forward:6:60"}, steps=30)


def _train_past_a_commit(fleet: Fleet) -> None:
    """Step 4 is committed, and step 6 under way: there is something to save."""
    vm = fleet.boot()
    fleet.wait_event("committed", timeout=PATIENCE_S)
    wait_for_file(fleet, vm.disk / "in-forward-6")


ONE_VM = [(-HOUR, 1)]


def test_a_run_that_is_well_and_one_that_is_over_alert_nobody(healthy: Told) -> None:
    assert healthy.firing(2 * MINUTE, vms=ONE_VM) == set()
    assert healthy.firing(30 * MINUTE, vms=ONE_VM) == set()
    assert healthy.firing(5 * HOUR, vms=[(-HOUR, 1), (MINUTE, 0)]) == set()


def test_vms_without_a_commit_for_an_hour_alert_and_none_do_not(healthy: Told) -> None:
    assert healthy.firing(68 * MINUTE, vms=ONE_VM) == {"no commit in 60m"}
    assert healthy.firing(62 * MINUTE, vms=ONE_VM) == set(), "it must hold for 5 minutes"
    assert healthy.firing(68 * MINUTE, vms=[(-HOUR, 1), (40 * MINUTE, 0), (45 * MINUTE, 1)]) == set()


def test_a_vm_that_does_not_come_back_alerts_and_a_run_that_is_over_does_not(healthy: Told) -> None:
    gone = [(-HOUR, 1), (MINUTE, 0)]
    under_way = healthy.without("complete")
    assert healthy.firing(33 * MINUTE, vms=gone, entries=under_way) == {"fewer VMs than the run needs"}
    assert healthy.firing(20 * MINUTE, vms=gone, entries=under_way) == set()
    assert healthy.firing(33 * MINUTE, vms=gone) == set()


def test_a_vm_that_is_back_without_its_run_alerts(healthy: Told) -> None:
    """The preemption two hours in, and no agent started since."""
    names = [entry["jsonPayload"]["EVENT"] for _, entry in healthy.entries]
    notice = names.index("notice")
    back = names.index("agent_started", notice)
    before, window, after = healthy.entries[:notice], healthy.entries[notice:back], healthy.entries[back:]
    later = [(at + 2 * HOUR, entry) for at, entry in window]
    soon = [(at + 2 * HOUR, entry) for at, entry in after if entry["jsonPayload"]["EVENT"] != "complete"]
    at = 2 * HOUR + 62 * MINUTE
    assert "VMs, but no run" in healthy.firing(at, vms=ONE_VM, entries=before + later)
    assert "VMs, but no run" not in healthy.firing(at, vms=ONE_VM, entries=before + later + soon)


def test_vms_that_come_and_go_without_an_agent_alert_after_half_an_hour(healthy: Told) -> None:
    """Replaced each 40 minutes, for ever: no two hours without a zero, which is all that `no-progress` saw."""
    came = "VMs came, and no agent"
    cycle = [each for n in range(60) for each in ((n * 43 * MINUTE, 1), ((n * 43 + 40) * MINUTE, 0))]
    assert came not in healthy.firing(30 * MINUTE, vms=cycle, entries=[])
    for at in (36 * MINUTE, 5 * HOUR, 20 * HOUR, 40 * HOUR):
        assert came in healthy.firing(at, vms=cycle, entries=[])
        assert "no commit in 60m" not in healthy.firing(at, vms=cycle, entries=[])
    assert "VMs, and no word of an agent for a day" in healthy.firing(30 * HOUR, vms=[(0, 1)], entries=[])
    started = [(at, entry) for at, entry in healthy.entries if entry["jsonPayload"]["EVENT"] == "agent_started"][:1]
    assert came not in healthy.firing(40 * MINUTE, vms=cycle, entries=started)
    taken_away = [(-HOUR, 1), (10 * HOUR, 0), (11 * HOUR, 1)]  # trained for ten hours, and back an hour later
    back = [*started, *((at + 11 * HOUR + 5 * MINUTE, entry) for at, entry in started)]
    for minute in range(0, 150, 5):
        assert came not in healthy.firing(10 * HOUR + minute * MINUTE, vms=taken_away, entries=back)


def test_a_trainer_that_crashes_again_and_again_and_an_agent_that_gives_up_alert(module_world: World) -> None:
    def act(fleet: Fleet) -> None:
        fleet.boot()
        assert fleet.wait_off(PATIENCE_S) == 3

    told = record(module_world, act, env={"TOY_CRASH": "6"}, crash_limit=3)
    gave_up, often = "the agent gave up", "the trainer fails often"
    assert told.firing(5 * MINUTE, vms=ONE_VM) == {gave_up, often}
    assert told.firing(25 * MINUTE, vms=ONE_VM) == {often}
    assert told.firing(45 * MINUTE, vms=ONE_VM) == set()
    assert told.firing(5 * MINUTE, vms=ONE_VM, entries=told.without("trainer_ended")) == {gave_up}


def test_a_save_that_misses_its_window_alerts(module_world: World) -> None:
    def act(fleet: Fleet) -> None:
        _train_past_a_commit(fleet)
        module_world.storage.outage(seconds=10.0)
        fleet.preempt(shutdown_s=10.0)

    told = record(module_world, act, env={"TOY_PAUSE": "forward:6:60"}, steps=30, window="3 s")
    assert "a save in a window came to nothing" in told.firing(2 * MINUTE, vms=ONE_VM)
    assert told.firing(20 * MINUTE, vms=ONE_VM) == set()


def test_a_save_that_took_most_of_the_window_alerts(healthy: Told) -> None:
    def saves_of(seconds: float) -> Entries:
        slow = copy.deepcopy(healthy.entries)
        for _, entry in slow:
            if entry["jsonPayload"].get("REASON") == "emergency":
                entry["jsonPayload"]["DURABLE_S"] = str(seconds)
        return slow

    assert healthy.firing(5 * MINUTE, vms=ONE_VM, entries=saves_of(25.0)) == {"a save took most of 27 s"}
    assert healthy.firing(5 * MINUTE, vms=ONE_VM, entries=saves_of(10.0)) == set()
