"""What `spot run --preempt-every` and the demo say of an interruption is what the run's own records say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.store import open_store
from agent.telemetry.ledger import Incident, Resume, write_record
from infra.local.bucket import RunRecords
from infra.local.interruptions import Struck, measure
from infra.local.script import Happening, ScriptError
from infra.local.strikes import every, refuse


def test_a_strike_is_joined_with_its_record_and_with_the_return_before_the_next_one(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    phases = {"save_requested": 0.1, "staged": 0.2, "committed": 0.5}
    written: list[Incident | Resume] = [
        Incident("run", 1, "vm", "preempted", "metadata", 10.5, step_reached=7, step_committed=7, phases_s=phases),
        Resume("run", 3, "vm", 32.0, step=7, source="bucket", phases_s={"restored": 2.0, "first_step": 3.0}),
        Incident("run", 3, "vm", "crash", "exit", 40.0, step_reached=9, step_committed=7),
    ]
    for second, record in enumerate(written):
        record.at_utc = f"2026-01-01T00:00:0{second}.000000+00:00"
        write_record(store, record, timeout=5)
    struck = [
        Struck("preempt", "preempt", 1, 10.0, 7, 12.0, 13.0),
        Struck("power_cut", "power cut", 2, 20.0, 0, 20.0, 31.0),  # before that VM was back
        Struck("trainer_crash", "trainer SIGKILL", 3, 39.9, None, 39.9, 41.0),
    ]
    preempted, cut, crashed = measure(RunRecords(store), struck)
    assert (preempted.detect_ms, preempted.stage_ms, preempted.durable_s) == (500.0, 100.0, 1.0)
    assert (preempted.restore_s, preempted.steps_lost) == (None, 0), "it was struck again before it was back"
    assert (cut.detect_ms, cut.durable_s, cut.restore_s, cut.first_step_s, cut.steps_lost) == (None, None, 3.0, 4.0, 0)
    assert (crashed.restore_s, crashed.steps_lost) == (None, 2), "the agent knows what nobody counts out here"


def test_a_script_for_one_vm_at_home_is_one_that_can_happen() -> None:
    strikes = every(120.0)
    assert [(event.at, event.do) for event in (next(strikes), next(strikes))] == [(120, "preempt"), (240, "preempt")]
    refuse([Happening(at=1, do="bucket_away", lasting=2)], bucket="gs://bucket")
    with pytest.raises(ScriptError, match="a folder: it can't be away"):
        refuse([Happening(at=1, do="bucket_away", lasting=2)], bucket="file:///folder")
    with pytest.raises(ScriptError, match="one VM here, number 0: preempt is for number 1"):
        refuse([Happening(at=1, do="preempt", vm=1)], bucket="gs://bucket")
