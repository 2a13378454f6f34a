"""A run file that changed under a trainer that goes on: no key is passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.config import RunConfig, describe_fields
from agent.trainer.changes import changes, remember, tell_changes

RUN: dict[str, Any] = {
    "run_id": "mine",
    "workload": {"kind": "script", "command": ["python", "train.py"]},
    "checkpoint": {"bucket": "gs://runs", "every": "10 min"},
}


def run(**sections: Any) -> RunConfig:
    merged = {key: RUN.get(key, {}) | value for key, value in sections.items()}
    return RunConfig.model_validate(RUN | merged)


@pytest.mark.parametrize(
    ("sections", "taken", "later"),
    [
        ({}, [], []),
        ({"checkpoint": {"every": "5 min"}}, ["checkpoint.every"], []),
        ({"checkpoint": {"every": "500 steps"}}, [], ["checkpoint.every"]),
        ({"checkpoint": {"milestone_every": "500 steps"}}, [], ["checkpoint.milestone_every"]),
        ({"supervision": {"hang_timeout": "20 min"}}, ["supervision.hang_timeout"], []),
        ({"workload": {"env": {"A": "1"}}}, [], ["workload.env.A"]),
        ({"checkpoint": {"keep": 9}, "workload": {"command": ["a"]}}, ["checkpoint.keep"], ["workload.command"]),
    ],
)
def test_a_changed_key_is_taken_at_once_or_said_to_hold_later(
    sections: dict[str, Any], taken: list[str], later: list[str], tmp_path: Path
) -> None:
    remember(run(), tmp_path / "trainer.json")
    with capture_logs() as said:
        tell_changes(run(**sections), tmp_path / "trainer.json")
    expected = [{"event": "run_file_changed", "log_level": "warning", "taken": taken, "later": later}]
    assert said == (expected if sections else [])


def test_every_key_has_its_time() -> None:
    for field in describe_fields():
        was: dict[str, Any] = {}
        inside, keys = was, field.path.replace("[]", "").split(".")
        for key in keys[:-1]:
            inside = inside.setdefault(key, {})
        inside[keys[-1]] = "was"
        taken, later = changes(was, {})
        assert len(taken) + len(later) == 1, field.path


def test_without_a_record_of_the_file_nothing_is_said(tmp_path: Path) -> None:
    with capture_logs() as said:
        tell_changes(run(), tmp_path / "trainer.json")
    assert said == []
