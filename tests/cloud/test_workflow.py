"""The GitHub workflow: its actions can't change under us, its targets exist, and only deploying gets a token."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.cloud.examples import REPOSITORY

WORKFLOW = REPOSITORY / ".github/workflows/ci.yaml"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return found


def _steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_every_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text())
    assert len(used) > 5
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_every_target_and_every_run_file_is_there(workflow: dict[Any, Any]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z][a-z-]*)", " ".join(step.get("run", "") for step in _steps(workflow))))
    targets |= set(workflow["jobs"]["test"]["strategy"]["matrix"]["target"])
    assert targets >= {"synth", "terraform", "checkov", "deploy", "check", "test", "test-slow"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    runs = workflow["jobs"]["stacks"]["strategy"]["matrix"]["run"]
    assert [run for run in runs if not (REPOSITORY / run).is_file()] == []


def test_only_deploying_gets_a_token_on_main_by_hand_and_without_a_key(workflow: dict[Any, Any]) -> None:
    jobs = workflow["jobs"]
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["deploy"]
    assert workflow["permissions"] == {"contents": "read"}
    condition = jobs["deploy"]["if"]
    assert "github.event_name == 'workflow_dispatch'" in condition
    assert "github.ref == 'refs/heads/main'" in condition
    assert "credentials_json" not in WORKFLOW.read_text()
    assert "secrets." not in WORKFLOW.read_text()


def test_who_deploys_has_the_login_and_then_the_programs_that_use_it(workflow: dict[Any, Any]) -> None:
    used = [step.get("uses", step.get("run", "")).partition("@")[0] for step in workflow["jobs"]["deploy"]["steps"]]
    order = ["google-github-actions/auth", "google-github-actions/setup-gcloud"]
    assert [one for one in used if one in order or one.startswith("make deploy")] == [*order, used[-1]]


def test_no_text_from_outside_becomes_part_of_a_script(workflow: dict[Any, Any]) -> None:
    assert [step["run"] for step in _steps(workflow) if "${{" in step.get("run", "")] == []
