"""The app writes, for every example run file, stacks that Terraform can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cloud.examples import Synthesized


def test_every_example_writes_a_manifest_of_its_stacks(example: Synthesized) -> None:
    manifest = json.loads((example.out / "manifest.json").read_text())
    assert set(manifest["stacks"]) == set(example.stacks)


def test_labels_keep_their_names(example: Synthesized) -> None:
    """A bill that is split by spot-run, and a budget that counts it, find nothing under spot_run."""
    for name, stack in example.stacks.items():
        (provider,) = [provider for provider in stack["provider"]["google"] if "alias" not in provider]
        assert provider["default_labels"].items() <= example.deployment.labels.items(), name
        assert provider["default_labels"]["managed-by"] == "spot-training"


def test_bindings_are_loaded_resource_by_resource_and_not_all_1850_at_once(tmp_path: Path) -> None:
    """It is half the time of a synth. A new version of the bindings may write its index in another way."""
    say = tmp_path / "say_what_was_loaded.cjs"
    say.write_text(
        "process.on('exit', () => require('node:fs').writeFileSync("
        "`${__dirname}/${process.pid}.loaded`, Object.keys(require('node:module')._cache).join('\\n')))"
    )
    subprocess.run(
        [sys.executable, "-c", "from infra.main import load_bindings; load_bindings()"],
        env={**os.environ, "NODE_OPTIONS": f'--require="{say}"'},
        check=True,
        timeout=60,
    )
    loaded = [line for path in tmp_path.glob("*.loaded") for line in path.read_text().splitlines()]
    assert 0 < sum("provider-google" in line for line in loaded) < 20
