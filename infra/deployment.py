"""Deployment: what the stacks build from one run file, in names, places and labels.

    deployment = Deployment.of(load_run(Path("run.yaml")))

Every name that two stacks share is made here, as plain text, so that they need not read each other's state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agent.config import Cloud, Machine, RunConfig

RUN_METADATA = "spot-run"
"""Custom metadata key of a VM: its run file."""


class NotDeployable(Exception):
    """The run file can be trained, and can't be deployed; the text says why and what to write."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One run file in one project."""

    run: RunConfig
    cloud: Cloud
    bucket: str
    """The bucket's name, without gs://."""
    prefix: str
    """Where the run is in the bucket, without a slash at either end: PREFIX/RUN_ID."""

    @classmethod
    def of(cls, run: RunConfig) -> Deployment:
        """Raises NotDeployable where the run file lacks what only a deployment needs."""
        if run.cloud is None:
            raise NotDeployable(f"run {run.run_id} has no cloud section\n    fix: add cloud: {{project: PROJECT-ID}}")
        if not run.checkpoint.bucket.startswith("gs://"):
            raise NotDeployable(
                f"checkpoint.bucket is {run.checkpoint.bucket}, which no VM can reach\n    fix: write gs://BUCKET/PREFIX"
            )
        bucket, _, prefix = run.checkpoint.bucket.removeprefix("gs://").partition("/")
        return cls(run=run, cloud=run.cloud, bucket=bucket, prefix=f"{prefix}/{run.run_id}".lstrip("/"))

    @property
    def project(self) -> str:
        return self.cloud.project

    @property
    def machine(self) -> Machine:
        return self.run.machine

    @property
    def region(self) -> str:
        return self.run.machine.region

    @property
    def state_bucket(self) -> str:
        return self.cloud.state_bucket or f"{self.project}-spot-state"

    @property
    def labels(self) -> dict[str, str]:
        """On everything that takes labels: the bill and the console can be split by them."""
        return {"managed-by": "spot-training", "spot-run": self.run.run_id}

    @property
    def network(self) -> str:
        """Name of the VPC network: one per region, shared by the runs there."""
        return f"spot-training-{self.region}"

    @property
    def vm_tag(self) -> str:
        """Network tag of training VMs."""
        return "spot-training"

    @property
    def vm_account_id(self) -> str:
        """The run's own service account, so that no run can touch another's checkpoints."""
        return shorten(f"spot-{self.run.run_id}", 30)

    @property
    def vm_email(self) -> str:
        return f"{self.vm_account_id}@{self.project}.iam.gserviceaccount.com"


def shorten(name: str, longest: int) -> str:
    """`name`, or, where it is longer, its start and a digest: the same name always gives the same text."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 7].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
