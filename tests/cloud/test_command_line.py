"""`cdktf` and `cdktn` themselves, from npm, on our app: they write the same stacks as we do, and offer each by name."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cloud.examples import BUNDLE
from tests.cloud.npm import INSTALL_S, RUN_S, Programs, installed

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize

PACKAGES = ("cdktn-cli@0.24.0", "cdktf-cli@0.21.0")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(INSTALL_S + 4 * RUN_S),
    pytest.mark.skipif(not shutil.which("terraform"), reason="both ask for terraform on PATH before all else"),
]


@pytest.fixture(scope="module")
def command_lines() -> Programs:
    """Both: they take minutes to fetch."""
    return installed(*PACKAGES)


@pytest.fixture(params=["cdktn", "cdktf"])
def program(request: pytest.FixtureRequest, command_lines: Programs) -> str:
    found = subprocess.run(
        [command_lines.node, "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()
    if request.param == "cdktf" and int(found[1:].split(".")[0]) > 22:
        pytest.skip(f"cdktf-cli 0.21, the last one, has native parts for Node.js 16 to 22, and this is {found}")
    return str(request.param)


def test_it_writes_the_stacks_and_selects_each_by_name(
    program: str, command_lines: Programs, synthesized: Synthesize, tmp_path: Path
) -> None:
    ours = synthesized("production")
    bundle = tmp_path / Path(BUNDLE).name
    bundle.touch()
    env = {"SPOT_RUN": "workloads/llm/production.yaml", "SPOT_BUNDLE": str(bundle)}
    out = tmp_path / "out"
    done = command_lines.run(program, "synth", "--output", str(out), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = {path.parent.name: json.loads(path.read_text()) for path in out.glob("stacks/*/cdk.tf.json")}
    assert sorted(theirs) == sorted(ours.stacks)
    for name in theirs:
        assert theirs[name]["resource"] == ours.stacks[name]["resource"], name
        assert theirs[name]["terraform"] == ours.stacks[name]["terraform"], name

    listed = command_lines.run(program, "list", "--skip-synth", "--output", str(out), **env)
    told = "".join(listed.stdout.split())  # in columns, a long path is broken anywhere
    assert all(f"stacks/{name}" in told for name in ours.stacks), listed.stdout + listed.stderr

    # None of these can reach a cloud: there is no such file, and nobody to approve.
    env["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "nobody.json")
    for command in ("diff", "deploy", "destroy"):
        gone = command_lines.run(program, command, "nothing", "--skip-synth", "--output", str(out), **env)
        assert gone.returncode != 0
        assert "Could not find stack" in gone.stdout + gone.stderr
    found = command_lines.run(program, "diff", "fleet", "--skip-synth", "--output", str(out), **env)
    assert "Could not find stack" not in found.stdout + found.stderr
    assert "Initializing the backend" in found.stdout + found.stderr, "it did not get as far as Terraform"
