"""Local cloud: storage with real tokens and least-privilege rules, ready for fleets."""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    bucket: str, run_prefixes: list[str], *, preallocate: int = 0, address: str = "127.0.0.1"
) -> Iterator[LocalCloud]:
    """A bucket in which VMs may create and read, and delete nothing but rolling checkpoints of their runs.

    Inside the block this process is the operator: its default credentials may do everything with objects.
    """
    with running_storage(preallocate=preallocate, address=address) as storage:
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
        with MetadataServer(service_account=OPERATOR, mint=cloud.mint) as metadata, acting_as(metadata):
            before = os.environ.get("STORAGE_EMULATOR_HOST")
            os.environ["STORAGE_EMULATOR_HOST"] = storage.url
            try:
                yield cloud
            finally:
                _put_back("STORAGE_EMULATOR_HOST", before)


@contextmanager
def acting_as(metadata: MetadataServer) -> Iterator[None]:
    """Inside the block this process' default credentials are those of `metadata`'s service account."""
    before = os.environ.get("GCE_METADATA_HOST")
    os.environ["GCE_METADATA_HOST"] = metadata.host
    _renew_reader()
    try:
        yield
    finally:
        _put_back("GCE_METADATA_HOST", before)
        _renew_reader()


def _renew_reader() -> None:
    if reader := sys.modules.get("google.auth.compute_engine._metadata"):
        importlib.reload(reader)  # it takes the address once, when it is imported


def _put_back(variable: str, before: str | None) -> None:
    os.environ.pop(variable)
    if before is not None:
        os.environ[variable] = before
