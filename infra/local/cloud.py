"""Local cloud: storage with real tokens and least-privilege rules, ready for fleets."""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.metadata import MetadataServer
from infra.local.storage.control import StorageControl, running_storage
from infra.local.storage.iam import Rule

VM_IDENTITY = "spot-training@local-project.iam.gserviceaccount.com"
OPERATOR = "operator@local-project.iam.gserviceaccount.com"


@dataclass(frozen=True)
class LocalCloud:
    """The bucket's server, and how a metadata server gets tokens that it accepts."""

    storage: StorageControl

    def mint(self, identity: str, lifetime_s: float) -> str:
        """A new token of `identity`."""
        token = secrets.token_urlsafe(24)
        self.storage.token(token, identity, lifetime_s=lifetime_s)
        return token


@contextmanager
def local_cloud(
    bucket: str,
    run_prefixes: list[str],
    *,
    preallocate: int = 0,
    address: str = "127.0.0.1",
    folder: Path | None = None,
) -> Iterator[LocalCloud]:
    """A bucket in which VMs may create and read, and delete nothing but rolling checkpoints of their runs.

    `folder`: where it is kept, so that it outlives this.

    Inside the block this process is the operator: its default credentials may do everything with objects.
    """
    with running_storage(preallocate=preallocate, address=address, folder=folder) as storage:
        cloud = LocalCloud(storage)
        storage.create_bucket(bucket)
        storage.iam(
            [
                Rule(identity=OPERATOR, actions=frozenset({"create", "get", "list", "delete", "update"})),
                Rule(identity=OPERATOR, actions=frozenset({"buckets.get"})),
                Rule(identity=VM_IDENTITY, actions=frozenset({"create", "get", "list", "buckets.get"}), bucket=bucket),
                *(
                    Rule(
                        identity=VM_IDENTITY,
                        actions=frozenset({"delete"}),
                        bucket=bucket,
                        prefix=f"{prefix.strip('/')}/rolling/",
                    )
                    for prefix in run_prefixes
                ),
            ]
        )
        with (
            MetadataServer(service_account=OPERATOR, mint=cloud.mint) as metadata,
            acting_as(metadata),
            _variable("STORAGE_EMULATOR_HOST", storage.url),
        ):
            yield cloud


@contextmanager
def acting_as(metadata: MetadataServer) -> Iterator[None]:
    """Inside the block this process' default credentials are those of `metadata`'s service account."""
    try:
        with _variable("GCE_METADATA_HOST", metadata.host):
            _renew_reader()
            yield
    finally:
        _renew_reader()


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _renew_reader() -> None:
    if reader := sys.modules.get("google.auth.compute_engine._metadata"):
        importlib.reload(reader)  # it takes the address once, when it is imported
