"""`spot start` and `spot stop`: which groups are resized, and to what.

gcloud is a stand-in, a script on PATH that notes its arguments and says how large the group is.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

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


def test_start_of_a_staged_run_leaves_later_stages_to_the_ones_before_them(run_file: Path, stand_in: Stand) -> None:
    run_file.write_text(
        "run_id: operated\n"
        "model: {name: some/model}\n"
        "data: {source: gs://some-bucket/text}\n"
        "training: {max_steps: 3}\n"
        "checkpoint: {bucket: gs://some-bucket/runs, every: 10 min}\n"
        "cloud: {project: some-project}\n"
        "stages: [{name: first, steps: 1}, {name: second, steps: 2, machine: {provisioning: standard}}]\n"
    )
    called = stand_in("gcloud", gcloud("0"))
    assert spot("start", run_file).exit_code == 0
    (resized,) = resizes(called)
    assert " spot-operated-first " in resized


@pytest.mark.parametrize("command", ["start", "stop"])
def test_a_run_that_was_never_deployed_says_so(command: str, run_file: Path, stand_in: Stand) -> None:
    stand_in("gcloud", "echo 'ERROR: The resource was not found' >&2; exit 1")
    done = spot(command, run_file)
    assert done.exit_code == 1
    assert "was not found" in done.output
