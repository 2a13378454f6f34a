"""`spot deploy` and `spot destroy`: what is done, in which order, and what is never done unasked.

Terraform is a stand-in here, a script on PATH that notes how it was called: Google's provider can't be had everywhere.
The stacks, their checks and the doctor's are the real ones, and so are the HTTP calls.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.operate.deploy import BUCKET, Declined, Operation
from infra.operate.programs import ProgramError
from infra.operate.stacks import Stack, Terraform, read_stacks
from infra.stacks.deployment import Deployment
from tests.operate.cloud_server import STORAGE, Cloud
from tests.operate.conftest import Stand
from tests.operate.test_doctor import GCLOUD, bucket

Json = dict[str, Any]

TERRAFORM = """
case "$1" in
  version) echo '{"terraform_version": "1.11.4"}' ;;
  plan) touch spot.tfplan; exit 2 ;;
  state) [ "$2" = list ] && echo "$STATE" ;;
esac
exit 0
"""


def folders(out: Path, *names: str) -> list[Stack]:
    """Stacks as the app leaves them, empty, each after the one before it."""
    told = {}
    for place, name in enumerate(names):
        (out / "stacks" / name).mkdir(parents=True)
        told[name] = {
            "name": name,
            "workingDirectory": f"stacks/{name}",
            "dependencies": [names[place - 1]] if place else [],
        }
    (out / "manifest.json").write_text(json.dumps({"version": "0.24.0", "stacks": dict(reversed(told.items()))}))
    return read_stacks(out)


def operation(deployment: Deployment, run_file: Path, out: Path, *, yes: bool, said: list[str]) -> Operation:
    def ask(question: str) -> bool:
        said.append(question)
        return yes

    return Operation(deployment=deployment, run_file=run_file, out=out, say=said.append, ask=ask)


def calls(file: Path) -> list[str]:
    """What Terraform was told to do, without the flags; that its plan was read is left out."""
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("show ")]
    return [" ".join(word for word in words if not word.startswith("-")) for words in lines]


def test_stacks_come_after_those_that_they_depend_on(tmp_path: Path) -> None:
    stacks = folders(tmp_path, "foundation", "packages", "fleet", "observability")
    assert [stack.name for stack in stacks] == ["foundation", "packages", "fleet", "observability"]
    assert all(stack.folder.is_dir() for stack in stacks)


@pytest.mark.slow
def test_a_first_deployment_makes_the_state_bucket_and_applies_each_stack_in_order(
    cloud: Cloud, run_file: Path, stand_in: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("gcloud", GCLOUD)
    called = stand_in("terraform", f'echo "$PWD" >> {tmp_path}/folders\n{TERRAFORM}')
    (tmp_path / "bin/tofu").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["deploy", str(run_file), "--yes", "--with", "terraform"])
    assert done.exit_code == 0, done.output
    ((path, query, body),) = cloud.posted
    assert (path, query) == (STORAGE, {"project": ["some-project"]})
    assert body["name"] == "some-project-spot-state"
    assert body["versioning"] == {"enabled": True}
    assert body["iamConfiguration"] == {
        "uniformBucketLevelAccess": {"enabled": True},
        "publicAccessPrevention": "enforced",
    }
    done_to = [call for call in calls(called) if call.split()[0] in ("init", "plan", "apply")]
    assert done_to == ["init", "plan", "apply spot.tfplan"] * 4
    order = list(dict.fromkeys(Path(line).name for line in (tmp_path / "folders").read_text().splitlines()))
    assert order[-4:] == ["foundation", "packages", "fleet", "observability"]
    assert not list(tmp_path.rglob("spot.tfplan"))
    assert "spot logs" in done.stdout
    called.write_text("")
    (tmp_path / "folders").write_text("")
    monkeypatch.setenv("GROUP_SIZE", "0")  # the run is over: a deployment does not start it again
    done = CliRunner().invoke(app, ["deploy", str(run_file), "--yes", "--with", "terraform", "--run-only"])
    assert done.exit_code == 0, done.output
    assert "spot start" in done.stdout
    order = list(dict.fromkeys(Path(line).name for line in (tmp_path / "folders").read_text().splitlines()))
    assert order[-3:] == ["packages", "fleet", "observability"]
    assert "foundation" not in order


def test_nothing_is_made_in_a_project_that_is_not_ready(cloud: Cloud, run_file: Path, stand_in: Stand) -> None:
    stand_in("gcloud", GCLOUD)
    called = stand_in("tofu", TERRAFORM)
    cloud.answers["cloudbilling.googleapis.com/v1/projects/some-project/billingInfo"] = {"billingEnabled": False}
    done = CliRunner().invoke(app, ["deploy", str(run_file), "--yes"])
    assert done.exit_code == 1
    assert "no billing account" in done.stdout
    assert cloud.posted == []
    assert calls(called) == ["version"]


def test_who_says_no_has_nothing_applied(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    from infra.operate.api import CloudApi

    called = stand_in("tofu", TERRAFORM)
    said: list[str] = []
    doing = operation(deployment, run_file, tmp_path, yes=False, said=said)
    with pytest.raises(Declined):
        doing.need_state_bucket(CloudApi(endpoint=cloud.url))
    stacks = folders(tmp_path, "foundation", "fleet")
    with pytest.raises(Declined):
        doing.apply(Terraform(program="tofu"), stacks, api=CloudApi(endpoint=cloud.url))
    assert cloud.posted == []
    assert [call for call in calls(called) if call.startswith(("apply", "import"))] == []
    assert said[-1] == "Apply foundation?"
    assert not list(tmp_path.rglob("spot.tfplan"))


def test_a_bucket_that_is_there_is_taken_over_and_not_made_anew(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    from infra.operate.api import CloudApi

    called = stand_in("tofu", TERRAFORM)
    cloud.answers[f"{STORAGE}/some-bucket"] = bucket("some-bucket")
    doing = operation(deployment, run_file, tmp_path, yes=True, said=[])
    doing.apply(Terraform(program="tofu"), folders(tmp_path, "foundation"), api=CloudApi(endpoint=cloud.url))
    assert calls(called) == ["init", "state list", f"import {BUCKET} some-bucket", "plan", "apply spot.tfplan"]


def test_destroying_a_run_leaves_the_foundation_and_the_bucket_and_says_so(
    deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    called = stand_in("tofu", f'echo "$PWD" >> {tmp_path}/folders\n{TERRAFORM}')
    said: list[str] = []
    stacks = folders(tmp_path, "foundation", "packages", "fleet", "observability")
    doing = operation(deployment, run_file, tmp_path, yes=True, said=said)
    doing.destroy(Terraform(program="tofu"), stacks, foundation=False, delete_bucket=False)
    order = list(dict.fromkeys(Path(line).name for line in (tmp_path / "folders").read_text().splitlines()))
    assert order == ["observability", "fleet", "packages"]
    assert "-destroy" in called.read_text()
    assert said[0].startswith("gs://some-bucket stays, with all checkpoints and results")
    assert said[1].startswith("foundation stay")


def test_destroying_the_foundation_still_leaves_the_bucket(
    deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE", BUCKET)
    called = stand_in("tofu", TERRAFORM)
    doing = operation(deployment, run_file, tmp_path, yes=True, said=[])
    doing.destroy(Terraform(program="tofu"), folders(tmp_path, "foundation"), foundation=True, delete_bucket=False)
    assert calls(called) == ["init", "state list", f"state rm {BUCKET}", "plan", "apply spot.tfplan"]


def test_the_bucket_goes_only_with_its_own_word(
    deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE", BUCKET)
    called = stand_in("tofu", TERRAFORM)
    said: list[str] = []
    doing = operation(deployment, run_file, tmp_path, yes=True, said=said)
    doing.destroy(Terraform(program="tofu"), folders(tmp_path, "foundation"), foundation=True, delete_bucket=True)
    # The provider empties a bucket only where its state says so: that is written first.
    assert calls(called) == ["init", "state list", "plan", "apply spot.tfplan", "plan", "apply spot.tfplan"]
    assert [line for line in called.read_text().splitlines() if "-target" in line] == [
        f"plan -input=false -detailed-exitcode -out=spot.tfplan -target={BUCKET}"
    ]
    assert "gs://some-bucket is DELETED" in said[0]
    done = CliRunner().invoke(app, ["destroy", str(run_file), "--delete-bucket", "--yes"])
    assert (done.exit_code, "add --foundation" in done.output) == (2, True)


@pytest.mark.slow
def test_the_foundation_lets_go_of_its_bucket_only_when_told_its_name(
    deployment: Deployment, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    doing = operation(deployment, run_file, tmp_path / "out", yes=True, said=[])
    for delete in (False, True):
        doing.synthesize(delete_bucket=delete)
        made = json.loads((tmp_path / "out/stacks/foundation/cdk.tf.json").read_text())
        (kept,) = made["resource"]["google_storage_bucket"].values()
        assert (kept["lifecycle"]["prevent_destroy"], kept["force_destroy"]) == (not delete, delete)
    packages = tmp_path / "out/stacks/packages"
    stored = json.loads((packages / "cdk.tf.json").read_text())["resource"]["google_storage_bucket_object"]
    for bundle in stored.values():
        assert bundle["source"].startswith("../"), "a colleague's path is another: the object would be made anew"
        assert (packages / bundle["source"]).is_file()


def test_a_failed_apply_ends_the_deployment_and_says_that_it_can_go_on(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    from infra.operate.api import CloudApi

    stand_in("tofu", TERRAFORM.replace("plan)", "apply) exit 1 ;;\n  plan)"))
    stacks = folders(tmp_path, "packages", "fleet")
    doing = operation(deployment, run_file, tmp_path, yes=True, said=[])
    with pytest.raises(ProgramError, match=r"apply of stack packages ended with 1.*\n.*deploy again"):
        doing.apply(Terraform(program="tofu"), stacks, api=CloudApi(endpoint=cloud.url))


def test_deploying_goes_by_the_login_it_deploys_with_and_not_by_gclouds(
    cloud: Cloud, deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    stand_in("gcloud", GCLOUD.replace("echo ann@example.org", "true"))
    stand_in("tofu", TERRAFORM)
    found = operation(deployment, run_file, tmp_path, yes=True, said=[]).examine()
    (login,) = [one for one in found if one.what == "login"]
    assert (login.status, "spot start, stop, ssh and logs do not" in login.told) == ("note", True)
    assert [one.told for one in found if one.status == "problem"] == []


def test_cdktf_is_told_which_stacks_and_which_run_file(
    deployment: Deployment, run_file: Path, stand_in: Stand, tmp_path: Path
) -> None:
    called = stand_in("cdktf", f'echo "$SPOT_RUN" > {tmp_path}/told')
    doing = operation(deployment, run_file, tmp_path, yes=True, said=[])
    doing.with_cdktf("cdktf", "deploy", folders(tmp_path, "foundation", "fleet"), yes=True)
    assert called.read_text() == f"deploy foundation fleet --output={tmp_path} --skip-synth --auto-approve\n", (
        "what was proven is applied"
    )
    assert (tmp_path / "told").read_text().strip() == str(run_file)
