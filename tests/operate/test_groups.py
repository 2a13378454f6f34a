"""`spot start` and `spot stop`: which groups are resized, and to what.

gcloud is a stand-in, a script on PATH that notes its arguments and says how large the group is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.store import open_store
from infra.cli import app
from tests.operate.conftest import RUN, Stand

WHERE = "spot-operated --region=us-central1 --project=some-project"


def gcloud(size: str) -> str:
    return f'case "$*" in *describe*) echo {size} ;; esac'


def spot(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


def resizes(called: Path) -> list[str]:
    return [line for line in called.read_text().splitlines() if " resize " in line]


def test_start_gives_a_group_at_zero_its_vms_and_leaves_one_that_has_them(run_file: Path, stand_in: Stand) -> None:
    run_file.write_text(RUN.replace("us-central1}", "us-central1, vms: 3}"))
    called = stand_in("gcloud", gcloud("0"))
    assert spot("start", run_file).exit_code == 0
    assert resizes(called) == [f"compute instance-groups managed resize {WHERE} --size=3 --quiet"]
    called = stand_in("gcloud", gcloud("1"))
    called.write_text("")
    assert "already" in spot("start", run_file).output
    assert resizes(called) == []


def test_stop_asks_and_then_sets_groups_to_zero(run_file: Path, stand_in: Stand) -> None:
    called = stand_in("gcloud", gcloud("1"))
    assert spot("stop", run_file, answer="n\n").exit_code == 1
    assert resizes(called) == []
    assert spot("stop", run_file, "--yes").exit_code == 0
    assert resizes(called) == [f"compute instance-groups managed resize {WHERE} --size=0 --quiet"]


@pytest.mark.parametrize(
    ("line", "group"),
    [
        ([], "first"),
        ([("commit", 9, 10)], "first"),
        ([("commit", 10, 10)], "second"),
        ([("claim", 10, 30)], "second"),
        ([("restore", 8, 30)], "second"),
        ([("commit", 30, 30)], "second"),
    ],
    ids=["not begun", "in the first", "at the border", "in the second", "fallen back", "at its end"],
)
def test_start_of_a_staged_run_goes_on_in_the_stages_that_it_is_in(
    run_file: Path, stand_in: Stand, monkeypatch: pytest.MonkeyPatch, line: list[tuple[str, int, int]], group: str
) -> None:
    run_file.write_text(
        "run_id: operated\n"
        "model: {name: some/model}\n"
        "data: {source: gs://some-bucket/text}\n"
        "training: {max_steps: 30}\n"
        "checkpoint: {bucket: gs://some-bucket/runs, every: 10 min}\n"
        "cloud: {project: some-project}\n"
        "stages:\n- {name: first, steps: 4}\n- {name: as-the-first, steps: 6}\n"
        "- {name: second, steps: 20, machine: {provisioning: standard}}\n"
    )
    store = open_store(f"file://{run_file.parent}/bucket")
    for kind, step, until in line:
        store.create(
            "line/999999998.json",
            json.dumps({"kind": kind, "step": step, "facts": {"until": until}}).encode(),
            timeout=9.0,
        )
    monkeypatch.setattr("infra.operate.groups.open_store", lambda _url: store)
    called = stand_in("gcloud", gcloud("0"))
    assert spot("start", run_file).exit_code == 0
    (resized,) = resizes(called)
    assert f" spot-operated-{group} " in resized
    called = stand_in(
        "gcloud", f'case "$*" in *"describe spot-operated-{group}"*) echo 1 ;; *describe*) echo 0 ;; esac'
    )
    called.write_text("")
    assert "already" in spot("start", run_file).output
    assert resizes(called) == [], "never two groups at once"


@pytest.mark.parametrize("command", ["start", "stop"])
def test_a_run_that_was_never_deployed_says_so(command: str, run_file: Path, stand_in: Stand) -> None:
    stand_in("gcloud", "echo 'ERROR: The resource was not found' >&2; exit 1")
    done = spot(command, run_file)
    assert done.exit_code == 1
    assert "was not found" in done.output
