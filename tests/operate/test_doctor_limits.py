"""`spot doctor` on what others allow: somebody else's data, and how many of a kind a project may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.operate.api import CloudApi
from infra.operate.doctor.buckets import check_data
from infra.operate.doctor.finding import Finding, Patient
from infra.operate.doctor.limits import check_agent, check_counts, check_policies
from infra.operate.doctor.machine import check_machine
from infra.stacks.deployment import Deployment
from infra.stacks.machines import load_run
from tests.operate.cloud_server import PROJECT, STORAGE, Cloud
from tests.operate.conftest import RUN
from tests.operate.test_doctor import ZONES, Check, Trouble, bucket

BOOKS = RUN.replace(
    "workload: {kind: command, command: [./train.sh], checkpoint_dir: /var/lib/train}",
    """
model: {name: Qwen/Qwen3-0.6B}
training: {max_steps: 100}
data: {source: gs://books/plain}""",
).replace("every: 10 min", "every: 20 steps")


def test_data_in_somebody_elses_bucket_comes_with_the_command_for_its_owner(cloud: Cloud, tmp_path: Path) -> None:
    def told(text: str) -> Finding:
        (tmp_path / "books.yaml").write_text(text)
        (found,) = check_data(
            Patient(deployment=Deployment.of(load_run(tmp_path / "books.yaml")), api=CloudApi(endpoint=cloud.url))
        )
        return found

    tests = f"{STORAGE}/books/iam/testPermissions"
    assert "is not there" in told(BOOKS).told
    cloud.answers[f"{STORAGE}/books"] = bucket("books") | {"iamConfiguration": {}}
    assert "--uniform-bucket-level-access" in told(BOOKS).fix
    cloud.answers[f"{STORAGE}/books"] = bucket("books")
    cloud.answers[tests] = {}
    assert told(BOOKS).status == "problem"
    assert "add-iam-policy-binding gs://books --member=serviceAccount:spot-operated@" in told(BOOKS).fix
    cloud.answers[tests] = {"permissions": ["storage.buckets.setIamPolicy"]}
    assert told(BOOKS).status == "ok"
    cloud.refuse(f"{STORAGE}/books", 403, "no")
    theirs = told(BOOKS.replace("{project: some-project}", "{project: some-project, grant_data: false}"))
    assert theirs.status == "note"
    assert 'startsWith("projects/_/buckets/books/objects/plain/")' in theirs.fix


def test_what_a_project_may_have_of_a_kind_is_counted(cloud: Cloud, deployment: Deployment) -> None:
    patient = Patient(deployment=deployment, api=CloudApi(endpoint=cloud.url))
    cloud.answers[f"logging.googleapis.com/v2/projects/{PROJECT}/metrics"] = {"metrics": [{}] * 490}
    accounts, metrics = check_counts(patient)
    assert (accounts.status, metrics.status) == ("ok", "note")
    assert metrics.told.startswith("490 of 500 in use, this run file has 11")


POLICY = f"cloudresourcemanager.googleapis.com/v1/projects/{PROJECT}"


def says_otherwise(cloud: Cloud, **more: object) -> None:
    for zone in ZONES:
        cloud.answers[zone] = cloud.answers[zone] | more


REFUSALS: dict[str, tuple[Check, Trouble, str, str]] = {
    "Google's own account has no role": (
        check_agent,
        lambda cloud: cloud.answers[f"{POLICY}:getIamPolicy"].update(bindings=[]),
        "may make no VM",
        "--role=roles/editor",
    ),
    "guest attributes are forbidden": (
        check_policies,
        lambda cloud: cloud.answers.update(
            {
                f"orgpolicy.googleapis.com/v2/projects/{PROJECT}/policies/compute.disableGuestAttributesAccess:"
                "getEffectivePolicy": {"spec": {"rules": [{"enforce": True}]}}
            }
        ),
        "compute.disableGuestAttributesAccess is enforced",
        "orgpolicies",
    ),
    "our table of machine types is of yesterday": (
        check_machine,
        lambda cloud: says_otherwise(cloud, accelerators=[]),
        "Compute Engine says that it has no GPU; our table of",
        "infra/stacks/machine_types.py",
    ),
    "another architecture": (
        check_machine,
        lambda cloud: says_otherwise(cloud, architecture="ARM64"),
        "Compute Engine says that it is ARM64",
        "infra/stacks/machine_types.py",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_others_do_not_allow_is_told_with_what_to_do(name: str, cloud: Cloud, deployment: Deployment) -> None:
    check, trouble, told, fix = REFUSALS[name]
    trouble(cloud)
    (found,) = check(Patient(deployment=deployment, api=CloudApi(endpoint=cloud.url)))
    assert found.status == "problem"
    assert told in found.told
    assert fix in found.fix
