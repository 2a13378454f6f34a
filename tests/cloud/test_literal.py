"""Shell text goes through Terraform unharmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra.stacks.fleet.metadata import STARTUP_SCRIPT
from infra.stacks.literal import literal
from tests.cloud.terraform import PROGRAM, by_rule, rendered

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize

SHELL = {
    "variable": 'echo "${HOME:-/root}" ${array[@]} ${#x}',
    "process": "kill $$; echo $$${HOME} $$$${HOME} $${x}",
    "percent": 'printf "%{x} %%{x} %%%{y} 100%\\n" "${1%%.*}" ${2%{}}',
    "quotes": "'\"' \\ \\n \t\n$(date) `date` end$",
    "begun": "$ { % { ${",
}


def test_terraform_gives_a_vm_the_startup_script_as_it_is_in_the_file(synthesized: Synthesize) -> None:
    (template,) = synthesized("production").stacks["fleet"]["resource"]["google_compute_instance_template"].values()
    script = STARTUP_SCRIPT.read_text()
    assert "${" in script, "a script without variables proves nothing"
    assert rendered(template["metadata"])["startup-script"] == script


def test_any_shell_text_comes_out_as_it_went_in() -> None:
    assert rendered({name: literal(text) for name, text in SHELL.items()}) == SHELL


@pytest.mark.skipif(PROGRAM is None, reason="neither terraform nor tofu is installed")
def test_the_rule_is_terraforms_own() -> None:
    escaped = {name: literal(text) for name, text in SHELL.items()}
    assert {name: by_rule(text) for name, text in escaped.items()} == rendered(escaped)
