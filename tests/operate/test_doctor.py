"""`spot doctor`: each thing that is in the way is found, and comes with what to do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.operate.api import ApiError, CloudApi, NotLoggedIn
from infra.operate.doctor.buckets import check_bucket, check_state_bucket
from infra.operate.doctor.examination import CLOUD_CHECKS, examine
from infra.operate.doctor.finding import Finding, Patient
from infra.operate.doctor.machine import check_machine
from infra.operate.doctor.project import check_apis, check_billing, check_project
from infra.operate.doctor.quota import check_quota
from infra.operate.doctor.secret import check_secret
from infra.operate.doctor.tools import check_gcloud, check_terraform
from infra.stacks.deployment import Deployment
from tests.operate.cloud_server import COMPUTE, PROJECT, REGION, STORAGE, Cloud
from tests.operate.conftest import Stand

GCLOUD = """
case "$*" in
  version*) echo '{"Google Cloud SDK": "528.0.0"}' ;;
  "auth list"*) echo ann@example.org ;;
  *"managed describe"*) echo "${GROUP_SIZE:-1}" ;;
esac
"""
TERRAFORM = """echo '{"terraform_version": "1.11.4", "platform": "linux_amd64"}'"""


@pytest.fixture
def patient(cloud: Cloud, deployment: Deployment) -> Patient:
    return Patient(deployment=deployment, api=CloudApi(endpoint=cloud.url))


def problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status == "problem"]


def test_in_a_project_that_is_ready_nothing_is_a_problem(patient: Patient) -> None:
    found = [finding for check in CLOUD_CHECKS for finding in check(patient)]
    assert problems(found) == []
    assert {finding.what for finding in found} >= {"project", "billing", "APIs", "bucket", "state bucket", "W&B key"}


Trouble = Callable[[Cloud], object]
Check = Callable[[Patient], list[Finding]]
BILLING = f"cloudbilling.googleapis.com/v1/projects/{PROJECT}/billingInfo"
PROJECTS = f"cloudresourcemanager.googleapis.com/v3/projects/{PROJECT}"
SERVICES = f"serviceusage.googleapis.com/v1/projects/{PROJECT}/services:batchGet"
ZONES = [f"{COMPUTE}/zones/{REGION}-{letter}/machineTypes/a2-highgpu-1g" for letter in "abc"]


def bucket(name: str, **more: object) -> dict[str, object]:
    """Cloud Storage's bucket resource, of a bucket as Google makes it by default."""
    return {
        "kind": "storage#bucket",
        "name": name,
        "location": "US-CENTRAL1",
        "locationType": "region",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "inherited"},
        **more,
    }


TROUBLES: dict[str, tuple[Check, Trouble, str, str]] = {
    "no project": (
        check_project,
        lambda cloud: cloud.refuse(PROJECTS, 403, "The caller does not have permission"),
        "does not exist, or is not yours",
        "gcloud projects create some-project",
    ),
    "project is being deleted": (
        check_project,
        lambda cloud: cloud.answers[PROJECTS].update(state="DELETE_REQUESTED"),
        "DELETE_REQUESTED",
        "gcloud projects undelete some-project",
    ),
    "resource manager off": (
        check_project,
        lambda cloud: cloud.refuse(PROJECTS, 403, "has not been used before", reason="SERVICE_DISABLED"),
        "API is off",
        "gcloud services enable cloudresourcemanager.googleapis.com --project some-project",
    ),
    "no billing": (
        check_billing,
        lambda cloud: cloud.answers[BILLING].update(billingEnabled=False, billingAccountName=""),
        "no billing account",
        "gcloud billing projects link some-project",
    ),
    "API off": (
        check_apis,
        lambda cloud: cloud.answers[SERVICES]["services"][2].update(state="DISABLED"),
        "off: compute",
        "gcloud services enable compute.googleapis.com --project some-project",
    ),
    "no GPU quota at all": (
        check_quota,
        lambda cloud: cloud.quota("PREEMPTIBLE_NVIDIA_A100_GPUS", 0),
        "PREEMPTIBLE_NVIDIA_A100_GPUS: 1 of 0",
        "ask for 1 in us-central1",
    ),
    "GPU quota in use": (
        check_quota,
        lambda cloud: cloud.quota("PREEMPTIBLE_NVIDIA_A100_GPUS", 4, 4),
        "1 of 4, 4 in use",
        "ask for 5 in us-central1",
    ),
    "no GPUs in all regions": (
        check_quota,
        lambda cloud: cloud.answers[COMPUTE]["quotas"][0].update(limit=0.0),
        "GPUS_ALL_REGIONS: 1 of 0",
        "iam-admin/quotas?project=some-project",
    ),
    "too few CPUs": (
        check_quota,
        lambda cloud: cloud.quota("A2_CPUS", 8),
        "A2_CPUS: 12 of 8",
        "ask for 12",
    ),
    "too little disk": (
        check_quota,
        lambda cloud: cloud.quota("SSD_TOTAL_GB", 50),
        "SSD_TOTAL_GB: 100 of 50",
        "ask for 100",
    ),
    "no zone has the machine": (
        check_machine,
        lambda cloud: [cloud.answers.pop(zone) for zone in ZONES],
        "no zone has it",
        "gcloud compute machine-types list --filter=name=a2-highgpu-1g",
    ),
    "bucket is somebody else's": (
        check_bucket,
        lambda cloud: cloud.refuse(f"{STORAGE}/some-bucket", 403, "no access"),
        "not yours to read",
        "write another name",
    ),
    "bucket is in another region": (
        check_bucket,
        lambda cloud: cloud.answers.update({f"{STORAGE}/some-bucket": bucket("some-bucket", location="EUROPE-WEST4")}),
        "is in europe-west4, the VMs are in us-central1",
        "write another checkpoint.bucket",
    ),
    "state bucket without versions": (
        check_state_bucket,
        lambda cloud: cloud.answers.update({f"{STORAGE}/some-project-spot-state": bucket("some-project-spot-state")}),
        "lacks versioning, public-access-prevention",
        "gcloud storage buckets update gs://some-project-spot-state --versioning --public-access-prevention",
    ),
    "secret without a value": (
        check_secret,
        lambda cloud: cloud.answers.update(
            {f"secretmanager.googleapis.com/v1/projects/{PROJECT}/secrets/spot-some-bucket-wandb": {"name": "x"}}
        ),
        "has no value",
        "gcloud secrets versions add spot-some-bucket-wandb --data-file=-",
    ),
    "secret switched off": (
        check_secret,
        lambda cloud: cloud.answers.update(
            {
                f"secretmanager.googleapis.com/v1/projects/{PROJECT}/secrets/spot-some-bucket-wandb/versions/latest": {
                    "name": "x",
                    "state": "DISABLED",
                }
            }
        ),
        "is DISABLED",
        "gcloud secrets versions add",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_is_in_the_way_is_told_with_what_to_do(name: str, patient: Patient, cloud: Cloud) -> None:
    check, trouble, told, fix = TROUBLES[name]
    assert problems(check(patient)) == []
    trouble(cloud)
    (found,) = problems(check(patient))
    assert told in found.told
    assert fix in found.fix


def test_spot_machines_may_use_the_quota_of_standard_ones_where_there_is_no_other(
    patient: Patient, cloud: Cloud
) -> None:
    cloud.quota("PREEMPTIBLE_NVIDIA_A100_GPUS", 0)
    cloud.quota("NVIDIA_A100_GPUS", 1)
    assert problems(check_quota(patient)) == []


def test_soft_delete_on_the_bucket_is_told_because_it_bills_every_old_checkpoint(
    patient: Patient, cloud: Cloud
) -> None:
    kept = bucket("some-bucket", softDeletePolicy={"retentionDurationSeconds": "604800"})
    cloud.answers[f"{STORAGE}/some-bucket"] = kept
    (found,) = check_bucket(patient)
    assert (found.status, "7 days" in found.told) == ("note", True)
    assert found.fix == "gcloud storage buckets update gs://some-bucket --clear-soft-delete"


def test_a_server_that_is_away_is_a_problem_and_no_traceback(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOT_API_ENDPOINT", "http://127.0.0.1:9")
    found = examine(deployment, cloud_checks=[check_project, check_state_bucket])
    assert ["no answer from" in finding.told for finding in problems(found)[-2:]] == [True, True]


def test_a_check_that_never_answers_costs_its_limit_and_no_more(cloud: Cloud, deployment: Deployment) -> None:
    over = threading.Event()

    def check_for_ever(_patient: Patient) -> list[Finding]:
        over.wait(60.0)
        return []

    begun = time.monotonic()
    found = examine(deployment, cloud_checks=[check_for_ever, check_project], limit_s=0.5)
    assert time.monotonic() - begun < 30.0
    over.set()
    (late,) = [finding for finding in found if finding.what == "for ever"]
    assert (late.status, late.told) == ("problem", "no answer in time")


def test_without_a_login_it_says_how_to_log_in(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SPOT_API_ENDPOINT", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(NotLoggedIn):
        CloudApi(project="some-project")
    found = examine(deployment, cloud_checks=[check_project])
    (login,) = [finding for finding in found if finding.what == "credentials"]
    assert login.fix == "gcloud auth application-default login"


def test_what_google_says_is_what_is_told(cloud: Cloud) -> None:
    cloud.refuse("compute.googleapis.com/x", 429, "Quota exceeded for reads", reason="RATE_LIMIT_EXCEEDED")
    with pytest.raises(ApiError, match="Quota exceeded for reads") as refused:
        CloudApi(endpoint=cloud.url).get("https://compute.googleapis.com/x")
    assert (refused.value.status, refused.value.reason) == (429, "RATE_LIMIT_EXCEEDED")


def test_programs_that_are_there_and_logged_in_are_fine(stand_in: Stand) -> None:
    stand_in("gcloud", GCLOUD)
    stand_in("tofu", TERRAFORM)
    assert [finding.told for finding in check_gcloud()] == ["version 528.0.0", "ann@example.org"]
    assert [finding.told for finding in check_terraform()] == ["tofu 1.11.4"]


def test_gcloud_without_an_account_and_an_old_terraform_are_problems(stand_in: Stand) -> None:
    stand_in("gcloud", GCLOUD.replace("ann@example.org", ""))
    stand_in("tofu", TERRAFORM.replace("1.11.4", "1.5.7"))
    (login,) = problems(check_gcloud())
    assert login.fix == "gcloud auth login"
    assert "older than 1.6" in problems(check_terraform())[0].told


def test_the_command_tells_all_of_it_in_json_too_and_fails_when_there_is_a_problem(
    cloud: Cloud, run_file: Path, stand_in: Stand
) -> None:
    stand_in("gcloud", GCLOUD)
    stand_in("tofu", TERRAFORM)
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", str(run_file), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["healthy"]) == (0, True), told
    cloud.quota("PREEMPTIBLE_NVIDIA_A100_GPUS", 0)
    done = runner.invoke(app, ["doctor", str(run_file)])
    assert done.exit_code == 1
    assert "PROBLEM  quota: nvidia-tesla-a100 in us-central1" in done.stdout
    assert "fix: ask for 1 in us-central1" in done.stdout


def test_without_a_run_file_the_tools_are_checked_alone(stand_in: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOT_API_ENDPOINT", "http://127.0.0.1:9")  # whoever asked the cloud would hear nothing
    stand_in("gcloud", GCLOUD)
    stand_in("tofu", TERRAFORM)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    whats = [finding["what"] for finding in json.loads(done.stdout)["findings"]]
    assert (done.exit_code, whats) == (0, ["python", "node", "gcloud", "login", "terraform"])
