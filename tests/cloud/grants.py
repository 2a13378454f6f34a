"""Stacks that grant something, made from run files of the tests' own: the foundation, two runs, CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from agent.config import RunConfig
from infra.proof.policy import Policy
from infra.stacks.deployment import Deployment

PROJECT = "some-project"

ALPHA = """
run_id: alpha
model: {name: Qwen/Qwen3-0.6B}
data: {source: gs://some-runs/books/text}
training: {max_steps: 100}
checkpoint: {bucket: gs://some-runs/team}
machine: {type: a2-highgpu-1g, vms: 2}
tracking: {wandb: {project: spots}}
cloud:
  project: some-project
  operators: [user:ann@example.org]
  github: some/repository
"""
BETA = """
run_id: beta
workload: {kind: command, command: [./train.sh], checkpoint_dir: /var/lib/train}
checkpoint: {bucket: gs://some-runs/other, every: 10 min}
cloud:
  project: some-project
  operators: [user:ann@example.org]
"""

Json = dict[str, Any]


def deployment(text: str, *, bucket: str | None = None, run_id: str | None = None, **cloud: Any) -> Deployment:
    """From a run file's text, with another checkpoint.bucket or run_id, and changes to its cloud section."""
    described = yaml.safe_load(text)
    described["run_id"] = run_id or described["run_id"]
    described["checkpoint"]["bucket"] = bucket or described["checkpoint"]["bucket"]
    described["cloud"] |= cloud
    return Deployment.of(RunConfig.model_validate(described))


def synthesize_grants(out: Path, *, alpha: Deployment, beta: Deployment, keep_bucket: bool = True) -> dict[str, Json]:
    """The stacks by name: foundation, alpha, beta, continuous-integration."""
    from cdktn import App

    from infra.stacks.continuous_integration.stack import ContinuousIntegrationStack
    from infra.stacks.fleet.identity import RunIdentity
    from infra.stacks.foundation.stack import FoundationStack
    from infra.stacks.stack import GoogleStack

    app = App(outdir=str(out))
    FoundationStack(app, "foundation", deployment=alpha, keep_bucket=keep_bucket)
    for run in (alpha, beta):
        stack = GoogleStack(app, run.run.run_id, deployment=run, state=f"{run.place}/fleet")
        RunIdentity(stack, "identity", deployment=run)
    ContinuousIntegrationStack(app, "continuous-integration", deployment=alpha, repository="some/repository")
    app.synth()
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("stacks/*/cdk.tf.json")}


def policy_of(stacks: dict[str, Json]) -> Policy:
    """What the stacks grant, all together."""
    return Policy.of(stacks.values(), project=PROJECT)
