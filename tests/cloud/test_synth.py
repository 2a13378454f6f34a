"""The app writes, for every example run file, stacks that Terraform can read."""

from __future__ import annotations

import json
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
