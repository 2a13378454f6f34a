"""What all VMs of a session share: the bucket's server, tokens, network, images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from agent.store import Store, open_store
from infra.local.cloud import VM_IDENTITY, LocalCloud
from infra.local.cloud_logging import CloudLogging
from infra.local.compute import READ, UPDATE, ComputeServer
from infra.local.storage.seen import Seen
from tests.vm.containers.docker import Docker

BUCKET = "vm-bucket"
PREFIX = "runs"
RUNS = [f"run-{number:03d}" for number in range(1, 200)]


@dataclass
class Cloud:
    """`rig` names the session. `base` and `warm` are images, `mounts` what every VM gets of this machine."""

    docker: Docker
    rig: str
    network: str
    local: LocalCloud
    base: str
    warm: str
    bundle_url: str
    bundle_file: Path
    mounts: list[str]
    identities: dict[str, str] = field(default_factory=dict)
    _free_runs: list[str] = field(default_factory=lambda: RUNS[::-1])

    def mint(self, identity: str, lifetime_s: float) -> str:
        token = self.local.mint(identity, lifetime_s)
        self.identities[token] = identity
        return token

    @contextmanager
    def compute(self, group: str) -> Iterator[ComputeServer]:
        """A Compute Engine with one group, of size 1, which its VMs may read and resize."""
        with ComputeServer(identify=self.identities.get, address=self.gateway) as compute:
            compute.add_group(group, target_size=1)
            for permission in (READ, UPDATE):
                compute.allow(VM_IDENTITY, permission, group)
            yield compute

    @contextmanager
    def logging(self) -> Iterator[CloudLogging]:
        """A Cloud Logging that the VMs may write to."""
        with CloudLogging(identify=self.identities.get, writers={VM_IDENTITY}, address=self.gateway) as logging:
            yield logging

    def new_run(self) -> str:
        return self._free_runs.pop()

    def store(self, run_id: str) -> Store:
        """The run's part of the bucket, as its operator sees it."""
        return open_store(f"gs://{BUCKET}/{PREFIX}/{run_id}")

    def requests(self, run_id: str) -> list[Seen]:
        """What the bucket's server saw of a run, object names relative to the run's prefix."""
        prefix = f"{PREFIX}/{run_id}/"
        return [
            Seen(**{**vars(seen), "name": seen.name.removeprefix(prefix)})
            for seen in self.local.storage.requests()
            if seen.name.startswith(prefix)
        ]

    @cached_property
    def gateway(self) -> str:
        return str(self.docker.inspect(self.network)["IPAM"]["Config"][0]["Gateway"])
