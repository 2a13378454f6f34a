"""The ledger: records say what happened, in the order it happened, and none takes another's place."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.store import open_store
from agent.telemetry.ledger import Incident, Resume, utc_now, write_record
from infra.local.bucket import RunRecords
from tests.agent.stores import Watched

T = 10.0
NOON = datetime(2026, 10, 3, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(open_store(f"file://{tmp_path}"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One monotonic clock and one wall clock: seconds since 1000 and since noon."""
    now = [0.0]

    class Wall(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return NOON + timedelta(seconds=now[0])

    monkeypatch.setattr("agent.telemetry.ledger.datetime", Wall)
    monkeypatch.setattr("agent.telemetry.ledger.time", SimpleNamespace(monotonic=lambda: 1000.0 + now[0]))
    return now


def incident(**changes: object) -> Incident:
    values = {"run_id": "run", "attempt": 2, "vm": "vm-1", "kind": "preempted", "source": "metadata", "at": 1000.0}
    return Incident(**(values | changes))  # type: ignore[arg-type]


def test_phases_are_seconds_since_the_notice_and_the_first_time_counts(clock: list[float]) -> None:
    record = incident()
    clock[0] = 1.25
    record.mark("staged")
    record.mark("committed", 1002.5)
    clock[0] = 9.0
    record.mark("staged")
    record.mark("committed", 1009.0)
    assert record.phases_s == {"staged": 1.25, "committed": 2.5}
    resume = Resume("run", 2, "vm-1", 1000.0)
    resume.mark("fetched")
    resume.mark("fetched", 1000.0)
    assert resume.phases_s == {"fetched": 9.0}


@pytest.mark.parametrize(("reached", "committed", "lost"), [(7, 4, 3), (7, 7, 0), (4, 7, 0)])
def test_steps_lost_are_those_that_will_be_trained_again(reached: int, committed: int, lost: int) -> None:
    assert incident(step_reached=reached, step_committed=committed).steps_lost == lost


def test_a_record_in_the_bucket_is_the_record(store: Watched) -> None:
    record = incident(step_reached=7, step_committed=4, later_notices=["sigterm after 0.004 s"], window_s=27.0)
    record.mark("trainer_gone", 1003.0)
    resume = Resume("run", 3, "vm-1", 1000.0, source="memory", step=4, passed_over=["rolling/8: flipped"])
    for each in (record, resume):
        write_record(store, each, timeout=T)
    assert RunRecords(store).records() == [
        asdict(record) | {"record": "incident", "format": 1, "steps_lost": 3},
        asdict(resume) | {"record": "resume", "format": 1},
    ]


def test_records_are_listed_in_the_order_they_began_whatever_the_microsecond(
    store: Watched, clock: list[float]
) -> None:
    times = [0.0, 0.000001, 0.5, 0.999999, 1.0, 1.1, 59.0, 60.0, 3600.0, 86400.0]
    for at, seconds in enumerate(times):
        clock[0] = seconds
        write_record(store, incident(attempt=100 - at, detail=str(seconds)), timeout=T)
    assert [float(record["detail"]) for record in RunRecords(store).records()] == times


def test_records_of_one_moment_do_not_take_each_others_place(store: Watched, clock: list[float]) -> None:
    records: list[Incident | Resume] = [
        incident(),
        incident(kind="crash"),
        incident(attempt=3),
        Resume("run", 2, "vm-1", 1000.0),
    ]
    names = {write_record(store, record, timeout=T) for record in records}
    assert len(names) == len(store.names("events/")) == len(records)


def test_a_record_that_is_written_again_is_written_once(store: Watched) -> None:
    record = incident()
    assert write_record(store, record, timeout=T) == write_record(store, record, timeout=T)
    assert len(RunRecords(store).records()) == 1


def test_the_wall_clock_is_utc_and_can_be_read_back(clock: list[float]) -> None:
    for clock[0] in (0.0, 0.25):
        assert datetime.fromisoformat(utc_now()) == NOON + timedelta(seconds=clock[0])
        assert utc_now().endswith("+00:00")


def test_a_record_is_json_of_plain_values(store: Watched) -> None:
    name = write_record(store, incident(), timeout=T)
    values = json.loads(store.read(name, timeout=T))
    assert name.startswith("events/")
    assert name.endswith("-00002-incident-preempted.json")
    assert values["run_id"] == "run"
