"""checkov finds nothing in the stacks but what was decided otherwise, and would find more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.proof.checkov import PROGRAM, CheckovError, ask, read_decisions
from tests.cloud.examples import EXAMPLES

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PROGRAM.exists(), reason="checkov is not installed: make checkov"),
]


def write(folder: Path, stacks: dict[str, dict[str, object]]) -> None:
    for name, stack in stacks.items():
        (folder / "stacks" / name).mkdir(parents=True)
        (folder / "stacks" / name / "cdk.tf.json").write_text(json.dumps(stack))


def test_nothing_is_undecided_in_any_example_and_each_decision_is_needed(
    synthesized: Synthesize, tmp_path: Path
) -> None:
    for name in EXAMPLES:
        write(tmp_path, {f"{name}.{stack}": found for stack, found in synthesized(name).stacks.items()})
    opinion = ask(tmp_path)
    assert [str(found) for found in opinion.undecided] == []
    assert opinion.unneeded == []
    assert opinion.passed > 50 * len(EXAMPLES)


@pytest.mark.parametrize(
    ("where", "value", "check"),
    [
        ("google_storage_bucket.uniform_bucket_level_access", False, "CKV_GCP_29"),
        ("google_storage_bucket.public_access_prevention", "inherited", "CKV_GCP_114"),
        ("google_compute_subnetwork.private_ip_google_access", False, "CKV_GCP_74"),
    ],
)
def test_a_seeded_insecurity_is_found(
    synthesized: Synthesize, tmp_path: Path, where: str, value: object, check: str
) -> None:
    of_type, _, field = where.partition(".")
    foundation = json.loads(json.dumps(synthesized("production").stacks["foundation"]))
    (body,) = foundation["resource"][of_type].values()
    body[field] = value
    write(tmp_path, {"foundation": foundation})
    assert check in {found.check for found in ask(tmp_path).undecided}


def test_a_folder_without_stacks_is_no_clean_one(tmp_path: Path) -> None:
    with pytest.raises(CheckovError, match="nothing"):
        ask(tmp_path)


def test_each_decision_has_its_reason() -> None:
    assert all(len(decision.because) > 80 for decision in read_decisions())
