"""A store of each kind, with the means to damage what it holds."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.store import Store, open_store
from infra.local.storage.control import StorageControl, running_storage
from tests.agent.store.answering import Answer, Answering, serving


class FilePlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store: Store = open_store(f"file://{folder}/run")

    def flip_byte(self, name: str) -> None:
        path = self._folder / "run" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def truncate(self, name: str, size: int) -> None:
        os.truncate(self._folder / "run" / name, size)


@dataclass
class BucketPlace:
    """A bucket of its own on the local storage server, free of faults."""

    server: StorageControl
    bucket: str
    store: Store

    def flip_byte(self, name: str) -> None:
        self.server.corrupt(self.bucket, f"run/{name}", offset=1)

    def truncate(self, name: str, size: int) -> None:
        self.server.truncate(self.bucket, f"run/{name}", size)


Place = FilePlace | BucketPlace


@pytest.fixture(scope="session")
def server() -> Iterator[StorageControl]:
    with running_storage() as control:
        yield control


@pytest.fixture
def bucket(server: StorageControl, monkeypatch: pytest.MonkeyPatch) -> BucketPlace:
    server.reset()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    name = f"bucket-{uuid.uuid4().hex}"
    server.create_bucket(name)
    return BucketPlace(server, name, open_store(f"gs://{name}/run"))


@pytest.fixture(params=["file", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return FilePlace(tmp_path)
    found: BucketPlace = request.getfixturevalue("bucket")
    return found


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """A store whose server gives these answers and no others."""
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with contextlib.ExitStack() as stack:

        def start(*answers: Answer, reads_bodies: bool = True) -> Store:
            told = stack.enter_context(serving(*answers, reads_bodies=reads_bodies))
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", told.url)
            return open_store("gs://bucket/run")

        yield start
