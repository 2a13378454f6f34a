"""Deployment: what the stacks build from one run file, in names, places and labels.

    deployment = Deployment.of(load_run(Path("run.yaml")))

Every name that two stacks share is made here, as plain text, so that they need not read each other's state.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from agent.config import Cloud, Machine, RunConfig, format_seconds
from agent.config.program import with_code
from infra.stacks.fleet.patience import BOOT_S, LONGEST_S, first_step_s

RUN_METADATA = "spot-run"
"""Custom metadata key of a VM: its run file."""


PACKAGES = "packages/"
"""Where the project's own code is in a bucket, named by its digest: VMs read it, the operator and CI add to it."""

PROVIDER_ID = "github"
"""Of the identity pool's provider."""

EXPIRED = "expired/"
"""Where an operator moves what a bucket is to lose: the one prefix that is deleted from."""


class NotDeployable(Exception):
    """The run file can be trained, and can't be deployed; the text says why and what to write."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A bucket, and a folder in it without a slash at either end, or "" for all of it."""

    bucket: str
    folder: str


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
        bucket, _, folder = run.checkpoint.bucket.removeprefix("gs://").partition("/")
        prefix = f"{folder}/{run.run_id}".lstrip("/")
        if prefix.startswith((PACKAGES, EXPIRED)) or f"{prefix}/" in (PACKAGES, EXPIRED):
            raise NotDeployable(
                f"gs://{bucket}/{prefix} is where {prefix.partition('/')[0]} objects go\n"
                "    fix: write another checkpoint.bucket or run_id"
            )
        if not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", prefix):
            # It becomes part of conditions in policies, and must mean there what it means here.
            raise NotDeployable(
                f"checkpoint.bucket is {run.checkpoint.bucket}, with more in its path than letters, digits, '.', '_', "
                "'-' and single slashes\n    fix: write gs://BUCKET/PREFIX"
            )
        for key, place, fix in (
            ("data.source", run.data and run.data.source, "copy it to a bucket, and write gs://BUCKET/FOLDER"),
            ("model.name", run.model and run.model.name, "write a Hugging Face name"),
        ):
            if place and place.startswith("/") and run.cloud.image is None:
                raise NotDeployable(
                    f"{key} is {place}, a folder that no VM has\n    fix: {fix}, or a cloud.image that has the folder"
                )
        found = cls(run=run, cloud=run.cloud, bucket=bucket, prefix=prefix)
        for address in run.model.starts.values() if run.model else ():
            if not address.startswith(f"gs://{bucket}/"):
                raise NotDeployable(
                    f"a part of the model starts from {address}, and the VMs read no other bucket's checkpoints than "
                    f"gs://{bucket}'s\n    fix: copy that run's objects to gs://{bucket}, and name it there"
                )
        if run.cloud.github and found.grants_data and found.data and found.data.bucket != bucket:
            raise NotDeployable(
                f"data.source is in gs://{found.data.bucket}, and workflows of {run.cloud.github} may not say who "
                "reads that\n    fix: write cloud.grant_data: false, and let its owner type what `spot doctor` says"
            )
        if (takes := first_step_s(run)) > LONGEST_S:
            raise NotDeployable(
                f"a VM may take {format_seconds(takes)} to its first step (supervision), and no group waits longer "
                f"than {format_seconds(LONGEST_S)} before it makes a new one\n    fix: write a prepare_timeout, a "
                f"start_timeout and a restore_timeout of {format_seconds(LONGEST_S - BOOT_S)} together; what takes "
                "longer is for the bucket"
            )
        return found

    @property
    def place(self) -> str:
        """BUCKET/PREFIX/RUN_ID. A run of the same name in another bucket, of a colleague say, is another run."""
        return f"{self.bucket}/{self.prefix}"

    @property
    def data(self) -> Place | None:
        """Where data.source is, if in a bucket."""
        source = self.run.data.source if self.run.data else ""
        if not source.startswith("gs://"):
            return None
        bucket, _, folder = source.removeprefix("gs://").partition("/")
        return Place(bucket=bucket, folder=folder.strip("/"))

    @property
    def starts(self) -> list[str]:
        """The runs, by their prefix in this bucket, whose checkpoints the model's parts start from."""
        addresses = self.run.model.starts.values() if self.run.model else ()
        return sorted({address.rpartition("@")[0].removeprefix(f"gs://{self.bucket}/") for address in addresses})

    @property
    def grants_data(self) -> bool:
        """Whether the stacks let the VMs read data.source; what is in the run's own bucket they always do."""
        return self.cloud.grant_data or (self.data is not None and self.data.bucket == self.bucket)

    def with_code(self, packed: str) -> Deployment:
        """The deployment whose VMs fetch their program from `packed`, the name of what it was packed to."""
        return replace(self, run=with_code(self.run, self.package(packed)))

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
    def shared_labels(self) -> dict[str, str]:
        """On what several runs use."""
        return {"managed-by": "spot-training"}

    @property
    def foundation(self) -> str:
        """What the names of all begin with that the runs of one bucket share. Up to 40 of a-z, 0-9 and `-`."""
        return shorten(f"spot-{re.sub(r'[^a-z0-9]+', '-', self.bucket)}", 40)

    @property
    def network(self) -> str:
        """Name of the VPC network, shared by the runs of one bucket."""
        return self.foundation

    @property
    def subnetwork(self) -> str:
        """The subnet's path: projects/P/regions/R/subnetworks/S."""
        return f"projects/{self.project}/regions/{self.region}/subnetworks/{self.foundation}"

    @property
    def wandb_secret(self) -> str:
        """Path of the secret that holds the Weights & Biases key. Its value is added by hand, never by a stack."""
        return f"projects/{self.project}/secrets/{self.wandb_secret_id}"

    @property
    def wandb_secret_id(self) -> str:
        return f"{self.foundation}-wandb"

    def package(self, bundle: str) -> str:
        """gs:// path of a bundle or of packed code, given its file's name: SHA256.tar.gz (infra/stacks/packages)."""
        return f"gs://{self.bucket}/{PACKAGES}{bundle}"

    def role(self, name: str) -> str:
        """Path of the foundation's own role `name` (infra/stacks/foundation/roles.py)."""
        return f"projects/{self.project}/roles/{self.role_id(name)}"

    def role_id(self, name: str) -> str:
        return f"{self.foundation.replace('-', '_')}.{name}"

    @property
    def identity_pool(self) -> str:
        """Path of the pool that cloud.github's workflows come through. A deleted one keeps its name for 30 days, so it
        is one of the repository's, not one for all."""
        slug = re.sub(r"[/_.]", "-", (self.cloud.github or "").lower())
        pool = shorten(f"gh-{slug}", 32).rstrip("-")
        return f"projects/{self.project}/locations/global/workloadIdentityPools/{pool}"

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
