"""What a deployment does to what is there: said before it is done, refused where others use it, waited for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from infra.operate.api import CloudApi
from infra.operate.consequences import consequences
from infra.operate.deploy import POOL, POOL_PROVIDER
from infra.operate.programs import ProgramError
from infra.operate.stacks import Terraform
from infra.stacks.deployment import Deployment
from tests.operate.cloud_server import Cloud
from tests.operate.conftest import Stand
from tests.operate.test_deploy import TERRAFORM, calls, folders, operation

Json = dict[str, Any]


def test_what_google_forbids_is_tried_again_while_grants_spread_and_asked_once(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    """CI gives itself the right to act as the VMs that it makes next: Google knows of it minutes later."""
    refuses = (
        'apply) [ -e ../../granted ] || { echo "Error: Error 403: lacks iam.serviceAccounts.actAs" >&2; exit 1; } ;;'
    )
    called = stand_in("tofu", TERRAFORM.replace("plan)", f"{refuses}\n  plan)"))
    now, said = [0.0], list[str]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= granted:
            (tmp_path / "granted").touch()

    doing = operation(deployment, run_file, tmp_path, yes=True, said=said)
    doing = dataclasses.replace(doing, clock=lambda: now[0], sleep=sleep)
    granted, stacks = 180.0, folders(tmp_path, "fleet")
    doing.apply(Terraform(program="tofu"), stacks, api=CloudApi(endpoint=cloud.url))
    assert calls(called) == ["init", *["plan", "apply spot.tfplan"] * 4]
    assert said.count("Apply fleet?") == 1
    assert "A grant takes 2 to 7 minutes" in said[-1]
    (tmp_path / "granted").unlink()
    granted = 1e9
    with pytest.raises(ProgramError, match="apply of stack fleet ended with 1"):
        doing.apply(Terraform(program="tofu"), stacks, api=CloudApi(endpoint=cloud.url))
    assert 780 <= now[0] <= 840


def test_a_pool_that_was_taken_away_is_given_back(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    """Its name is taken for 30 days."""
    called = stand_in("tofu", TERRAFORM)
    ours = dataclasses.replace(deployment, cloud=deployment.cloud.model_copy(update={"github": "Some/repo.x"}))
    path = "projects/some-project/locations/global/workloadIdentityPools/gh-some-repo-x"
    for place in (path, f"{path}/providers/github"):
        cloud.answers[f"iam.googleapis.com/v1/{place}"] = {"state": "DELETED"}
    said: list[str] = []
    doing = operation(ours, run_file, tmp_path, yes=True, said=said)
    api = CloudApi(endpoint=cloud.url)
    doing.apply(Terraform(program="tofu"), folders(tmp_path, "continuous-integration"), api=api)
    assert [posted for posted, _, _ in cloud.posted] == [
        f"iam.googleapis.com/v1/{path}:undelete", f"iam.googleapis.com/v1/{path}/providers/github:undelete",
    ]  # fmt: skip
    imported = [call.split()[1:] for call in calls(called) if call.startswith("import")]
    assert imported == [[POOL, path], [POOL_PROVIDER, f"{path}/providers/github"]]


def test_what_runs_share_is_not_taken_away_by_the_run_file_that_came_last(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    """A run file without cloud.operators took every operator's grants away."""
    gone = change("google_project_iam_member", "delete", role="roles/logging.viewer", member="user:ann@example.org")
    planned = json.dumps({"resource_changes": [gone]})
    called = stand_in("tofu", TERRAFORM.replace("plan)", f"show) echo '{planned}' ;;\n  plan)"))
    said: list[str] = []
    doing = operation(deployment, run_file, tmp_path, yes=True, said=said)
    stacks, api = folders(tmp_path, "foundation"), CloudApi(endpoint=cloud.url)
    with pytest.raises(ProgramError, match=r"(?s)run.yaml would take from the foundation of .*--change-shared"):
        doing.apply(Terraform(program="tofu"), stacks, api=api)
    assert "takes 1 grant away: logging.viewer of user:ann@example.org" in said[-1]
    assert "apply spot.tfplan" not in calls(called)
    dataclasses.replace(doing, change_shared=True).apply(Terraform(program="tofu"), stacks, api=api)
    assert "apply spot.tfplan" in calls(called)


def change(kind: str, *actions: str, paths: tuple[str, ...] = (), **before: str) -> Json:
    said = {"actions": list(actions), "before": before or None, "replace_paths": [[path] for path in paths]}
    return {"address": f"{kind}.it", "type": kind, "change": said}


REGIONAL = "google_compute_region_instance_group_manager"


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        (change(REGIONAL, "create"), []),
        (change("google_compute_instance_template", "create", "delete"), []),
        (change(REGIONAL, "update", name="g"), ["changes the group g: VMs that train go on"]),
        (
            change(REGIONAL, "delete", "create", paths=("distribution_policy_zones",), name="g"),
            ["replaces the group g (distribution_policy_zones): its VMs are taken away now"],
        ),
        (change(REGIONAL, "delete", name="g"), ["takes the group g away, with its VMs"]),
        (
            change("google_storage_bucket", "delete", "create", paths=("location",), name="b"),
            ["replaces gs://b (location), which Terraform refuses"],
        ),
        (change("google_storage_bucket", "delete", name="b"), ["DELETES gs://b with all that is in it"]),
        (
            change("google_project_iam_member", "delete", role="roles/logging.viewer", member="user:ann@example.org"),
            ["takes 1 grant away: logging.viewer of user:ann@example.org"],
        ),
        (
            change("google_compute_subnetwork", "delete", "create", name="n"),
            ["replaces subnetwork n, which other runs"],
        ),
    ],
)
def test_what_a_change_does_to_vms_that_train_is_said_before_it_is_done(planned: Json, said: list[str]) -> None:
    told = consequences([planned])
    assert len(told) == len(said)
    assert [line.startswith(start) for line, start in zip(told, said, strict=True)] == [True] * len(said)
