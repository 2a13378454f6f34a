"""`make validate` repeats what Terraform says, and never claims what Terraform did not say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.proof.validate import NotValidated, validate

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize

PROGRAM = "terraform" if shutil.which("terraform") else "tofu"

pytestmark = pytest.mark.skipif(not shutil.which(PROGRAM), reason="neither terraform nor tofu is on PATH")


def written(folder: Path, stack: dict[str, Any]) -> Path:
    (folder / "stacks/one").mkdir(parents=True)
    (folder / "stacks/one/cdk.tf.json").write_text(json.dumps(stack))
    return folder


def test_terraform_reads_a_stack_that_needs_no_plugin(tmp_path: Path) -> None:
    folder = written(tmp_path, {"locals": {"a": "b"}, "output": {"c": {"value": "${local.a}"}}})
    (verdict,) = validate(folder, program=PROGRAM)
    assert (verdict.stack, verdict.mistakes) == ("one", [])
    assert [path.name for path in (folder / "stacks/one").iterdir()] == ["cdk.tf.json"]


def test_what_terraform_says_of_a_mistake_is_repeated(tmp_path: Path) -> None:
    folder = written(tmp_path, {"output": {"c": {"value": "${local.gone}"}}})
    (verdict,) = validate(folder, program=PROGRAM)
    (mistake,) = verdict.mistakes
    assert "undeclared local value" in mistake


def test_a_plugin_that_is_not_there_is_no_validation(tmp_path: Path) -> None:
    nobody = {"nothing": {"source": "registry.example.invalid/nobody/nothing", "version": "1.0.0"}}
    folder = written(tmp_path, {"terraform": {"required_providers": nobody}, "resource": {"nothing_at": {"all": {}}}})
    with pytest.raises(NotValidated, match="has no plugin"):
        list(validate(folder, program=PROGRAM))
    command = [sys.executable, "-m", "infra.proof.validate", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("NOT VALIDATED.")
    assert "valid, says" not in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_terraform_takes_every_stack_of_the_production_run(synthesized: Synthesize) -> None:
    try:
        verdicts = list(validate(synthesized("production").out, program=PROGRAM))
    except NotValidated as error:
        pytest.skip(f"not validated: {error}")
    assert {verdict.stack: verdict.mistakes for verdict in verdicts} == {
        stack: [] for stack in synthesized("production").stacks
    }
