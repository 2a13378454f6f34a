"""Continuous integration: one repository, one branch, no key, and no way to more."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from infra.stacks.deployment import Deployment
from infra.stacks.machines import load_run
from tests.cloud.conftest import Synthesize

RUN = """
run_id: deployed
workload: {kind: command, command: [./train.sh], checkpoint_dir: /var/lib/train}
checkpoint: {bucket: gs://some-bucket/runs, every: 10 min}
cloud:
  project: some-project
  github: Some-Owner/spot.training
  budget: {monthly: 700, billing_account: 012345-6789AB-CDEF01}
"""


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from cdktn import App

    from infra.stacks.continuous_integration.stack import ContinuousIntegrationStack

    folder = tmp_path_factory.mktemp("ci")
    (folder / "run.yaml").write_text(RUN)
    deployment = Deployment.of(load_run(folder / "run.yaml"))
    app = App(outdir=str(folder / "out"))
    ContinuousIntegrationStack(
        app, "continuous-integration", deployment=deployment, repository="Some-Owner/spot.training"
    )
    app.synth()
    found: dict[str, Any] = json.loads((folder / "out/stacks/continuous-integration/cdk.tf.json").read_text())
    return found["resource"]  # type: ignore[no-any-return]


def test_only_the_main_branch_of_one_repository_is_trusted(resources: dict[str, Any]) -> None:
    (provider,) = resources["google_iam_workload_identity_pool_provider"].values()
    condition = provider["attribute_condition"]
    assert condition == "assertion.repository == 'Some-Owner/spot.training' && assertion.ref == 'refs/heads/main'"
    assert provider["oidc"] == {"issuer_uri": "https://token.actions.githubusercontent.com"}
    # What the binding asks for must be mapped from the token, or it never matches.
    assert provider["attribute_mapping"]["attribute.repository"] == "assertion.repository"
    (binding,) = resources["google_service_account_iam_member"].values()
    assert binding["role"] == "roles/iam.workloadIdentityUser"
    assert binding["member"].endswith("/attribute.repository/Some-Owner/spot.training")
    assert binding["member"].startswith("principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.pool.")
    assert "*" not in condition + binding["member"]


def test_the_pool_has_a_name_that_google_takes(resources: dict[str, Any]) -> None:
    (pool,) = resources["google_iam_workload_identity_pool"].values()
    assert re.fullmatch(r"[a-z0-9-]{4,32}", pool["workload_identity_pool_id"])
    assert not pool["workload_identity_pool_id"].startswith("gcp-")


def test_there_is_no_key(resources: dict[str, Any]) -> None:
    assert [kind for kind in resources if "key" in kind] == []


def test_the_identity_can_not_give_itself_more(resources: dict[str, Any]) -> None:
    members = resources["google_project_iam_member"].values()
    roles = {member["role"] for member in members}
    too_much = {"roles/owner", "roles/editor", "roles/iam.securityAdmin", "roles/iam.workloadIdentityPoolAdmin"}
    too_much |= {"roles/storage.admin", "roles/secretmanager.admin", "roles/iam.roleAdmin", "roles/compute.admin"}
    assert roles & too_much == set()
    granting = [member for member in members if member["role"] == "roles/resourcemanager.projectIamAdmin"]
    (granted,) = [member["condition"]["expression"] for member in granting]
    allowed = set(re.findall(r"'((?:projects/[^/']+/)?roles/[\w.]+)'", granted))
    assert "hasOnly" in granted
    assert allowed & roles == set(), "it could hand itself, or anybody, a role of its own"


def test_the_identity_may_hand_out_all_that_a_run_needs(synthesized: Synthesize) -> None:
    example = synthesized("github")
    members = example.stacks["continuous-integration"]["resource"]["google_project_iam_member"].values()
    granting = "roles/resourcemanager.projectIamAdmin"
    (condition,) = [member["condition"]["expression"] for member in members if member["role"] == granting]
    needed = {member["role"] for member in example.stacks["fleet"]["resource"]["google_project_iam_member"].values()}
    assert len(needed) > 2
    assert [role for role in needed if f"'{role}'" not in condition] == []


def test_of_the_buckets_it_sees_the_run_s_and_the_state_s_alone(resources: dict[str, Any]) -> None:
    members = resources["google_storage_bucket_iam_member"].values()
    assert {(member["bucket"], member["role"]) for member in members} == {
        ("some-bucket", "roles/storage.admin"),
        ("some-project-spot-state", "roles/storage.objectAdmin"),
        ("some-project-spot-state", "roles/storage.legacyBucketReader"),
    }
