"""`spot logs`, `spot ssh` and the drill: what gcloud is told.

gcloud is a stand-in, a script on PATH that notes its arguments.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.cli import app
from infra.operate.journal import Wanted, gcloud_logging, journalctl
from infra.operate.programs import ProgramError, capture, require
from infra.stacks.deployment import Deployment
from tests.operate.conftest import Stand

VMS: list[dict[str, object]] = [
    {"name": "spot-operated-1", "zone": "https://c/zones/us-central1-a", "status": "STOPPING"},
    {
        "name": "spot-operated-2",
        "zone": "https://c/projects/p/zones/us-central1-b",
        "status": "RUNNING",
        "scheduling": {"provisioningModel": "SPOT"},
    },
]


def gcloud(vms: object) -> str:
    return f"""case "$*" in *"instances list"*) echo '{json.dumps(vms)}' ;; esac"""


def spot(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


def test_logs_go_through_iap_to_the_vm_that_runs_and_ask_the_journal_for_fields(
    run_file: Path, stand_in: Stand
) -> None:
    called = stand_in("gcloud", gcloud(VMS))
    done = spot("logs", run_file, "--event", "notice", "--field", "cause=preempted", "--since", "2h", "--lines", 50)
    assert done.exit_code == 0, done.output
    listed, read = called.read_text().splitlines()
    assert "--filter=labels.spot-run:(operated)" in listed
    assert "--project=some-project" in listed
    assert read == (
        "compute ssh spot-operated-2 --zone=us-central1-b --project=some-project --tunnel-through-iap "
        "--command=sudo journalctl --unit=spot-agent --output=short-iso-precise --lines=50 --no-pager --since=-2h "
        "EVENT=notice CAUSE=preempted"
    )


def test_what_the_operator_writes_is_quoted_for_the_shell_on_the_vm(run_file: Path, stand_in: Stand) -> None:
    called = stand_in("gcloud", gcloud(VMS))
    spot("logs", run_file, "--field", "why=a; rm -rf /")
    assert "'WHY=a; rm -rf /'" in called.read_text().splitlines()[-1]


def test_vms_that_are_gone_are_heard_in_cloud_logging(deployment: Deployment) -> None:
    command = gcloud_logging(Wanted(event='gave"up', priority="warning", since="2h"), deployment=deployment)
    assert command[3] == (
        'resource.type="gce_instance" AND jsonPayload.RUN_ID=("operated") AND severity>=WARNING '
        'AND jsonPayload.EVENT="gave\\"up"'
    )
    assert "--freshness=2h" in command


def test_following_is_without_end_and_the_trainer_can_be_read_alone() -> None:
    assert journalctl(Wanted(trainer=True), follow=True)[-2:] == ["--follow", "EVENT=trainer_output"]


def test_ssh_runs_a_command_or_opens_a_shell(run_file: Path, stand_in: Stand) -> None:
    called = stand_in("gcloud", gcloud(VMS))
    assert spot("ssh", run_file, "--", "curl", "-s", "localhost:9620/healthz").exit_code == 0
    assert called.read_text().splitlines()[-1].endswith("--command=curl -s localhost:9620/healthz")
    spot("ssh", run_file)
    assert called.read_text().splitlines()[-1].endswith("--tunnel-through-iap")


def test_the_status_of_a_command_on_the_vm_is_that_of_spot(run_file: Path, stand_in: Stand) -> None:
    stand_in("gcloud", gcloud(VMS) + '\ncase "$*" in *ssh*) exit 7 ;; esac')
    assert spot("ssh", run_file, "--", "false").exit_code == 7


def test_without_a_running_vm_it_says_where_to_look(run_file: Path, stand_in: Stand) -> None:
    stand_in("gcloud", gcloud(VMS[:1]))
    done = spot("logs", run_file)
    assert done.exit_code == 1
    assert "no VM of operated is running: spot-operated-1 is STOPPING" in done.output
    assert "spot logs RUN.yaml --cloud" in done.output


def test_a_drill_takes_one_spot_vm_away_and_only_after_a_yes(run_file: Path, stand_in: Stand) -> None:
    called = stand_in("gcloud", gcloud(VMS))
    assert spot("drill", run_file, answer="n\n").exit_code == 1
    assert "simulate-maintenance-event" not in called.read_text()
    done = spot("drill", run_file, answer="y\n")
    assert done.exit_code == 0, done.output
    assert called.read_text().splitlines()[-1] == (
        "compute instances simulate-maintenance-event spot-operated-2 --zone=us-central1-b --project=some-project"
    )


def test_a_standard_vm_is_not_drilled(run_file: Path, stand_in: Stand) -> None:
    called = stand_in("gcloud", gcloud([VMS[1] | {"scheduling": {"provisioningModel": "STANDARD"}}]))
    done = spot("drill", run_file, "--yes")
    assert (done.exit_code, "is no Spot VM" in done.output) == (1, True)
    assert "simulate-maintenance-event" not in called.read_text()


def test_what_gcloud_says_is_told_and_a_missing_one_is_said_how_to_get(
    run_file: Path, stand_in: Stand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in("gcloud", "echo 'ERROR: (gcloud) you do not have compute.instances.list' >&2; exit 1")
    done = spot("ssh", run_file)
    assert (done.exit_code, "you do not have compute.instances.list" in done.output) == (1, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = spot("ssh", run_file)
    assert (done.exit_code, "https://cloud.google.com/sdk/docs/install" in done.output) == (1, True)


def test_a_program_that_hangs_is_ended(stand_in: Stand) -> None:
    stand_in("gcloud", "exec sleep 30")
    with pytest.raises(ProgramError, match=r"no end after 0\.3 s: gcloud compute"):
        capture(["gcloud", "compute"], timeout=0.3)


def test_tofu_is_preferred_to_terraform(stand_in: Stand) -> None:
    stand_in("tofu", "")
    stand_in("terraform", "")
    assert require("tofu", "terraform") == "tofu"
