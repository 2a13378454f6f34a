"""One server process for all tests here; each test starts from an empty one with one bucket."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as gcs

from infra.local.storage.control import StorageControl, running_storage


@pytest.fixture(scope="session")
def server() -> Iterator[StorageControl]:
    with running_storage() as control:
        yield control


@pytest.fixture
def storage(server: StorageControl, monkeypatch: pytest.MonkeyPatch) -> StorageControl:
    """The control client of a fresh server with the bucket "bucket", which STORAGE_EMULATOR_HOST points at."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    server.reset()
    server.create_bucket("bucket")
    return server


@pytest.fixture
def bucket(storage: StorageControl) -> Iterator[gcs.Bucket]:
    """The bucket through Google's own client."""
    with gcs.Client(project="local", credentials=AnonymousCredentials()) as client:
        yield client.bucket("bucket")


@pytest.fixture
def http(storage: StorageControl) -> Iterator[httpx2.Client]:
    """Plain HTTP to the server."""
    with httpx2.Client(base_url=storage.url, timeout=10, trust_env=False) as client:
        yield client
