"""The run files that the cloud's tests synthesize, and what came of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.main import synthesize
from infra.stacks.deployment import Deployment
from infra.stacks.machines import load_run

REPOSITORY = Path(__file__).parents[2]

EXAMPLES = {
    path.stem: path
    for path in (
        *sorted(REPOSITORY.glob("workloads/llm/production*.yaml")),
        *sorted(REPOSITORY.glob("tests/cloud/runs/*.yaml")),
    )
}
"""Run files by name. A file put into tests/cloud/runs/ is synthesized, checked and compared like all the others."""

IN_TURN = [
    name
    if name in ("ablations", "github", "hybrid", "l4", "production")
    else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(EXAMPLES)
]
"""Each example for a test of it: the fast suite takes those that have most in them."""

BUNDLE = f"{'0' * 64}.tar.gz"
"""What VMs install from: the real one is named after the sources, and changes with each of them."""


CODE = f"{'1' * 64}.tar.gz"
"""What the program of a run that brings its own was packed to."""


@dataclass(frozen=True, kw_only=True)
class Synthesized:
    """One run file's stacks, as Terraform reads them."""

    name: str
    deployment: Deployment
    out: Path
    """The app's folder, as cdktf.out: stacks/NAME/cdk.tf.json and manifest.json."""
    stacks: dict[str, dict[str, Any]]
    """Terraform's JSON by stack name: {"resource": {TYPE: {NAME: {...}}}, "provider": ..., "terraform": ...}."""


def synthesize_example(name: str, *, out: Path) -> Synthesized:
    """Synthesizes EXAMPLES[name] below `out`. Loading the bindings takes seconds, once in a process."""
    deployment = Deployment.of(load_run(EXAMPLES[name]))
    code = CODE if deployment.run.workload.code else None
    synthesize(deployment, out=out, bundle=BUNDLE, code=code)
    stacks = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("stacks/*/cdk.tf.json"))}
    return Synthesized(name=name, deployment=deployment, out=out, stacks=stacks)
