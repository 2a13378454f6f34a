from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.storage.control import StorageControl, running_storage
from tests.promises.world import World


@pytest.fixture(scope="session")
def shared_storage() -> Iterator[StorageControl]:
    with running_storage() as storage:
        storage.create_bucket("demo")
        yield storage


@pytest.fixture
def world(shared_storage: StorageControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(shared_storage, tmp_path, monkeypatch)
    shared_storage.clear()


@pytest.fixture(scope="session")
def reference(shared_storage: StorageControl, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The uninterrupted run's outcome."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(shared_storage, tmp_path_factory.mktemp("reference"), monkeypatch)
        with world.fleet() as fleet:
            fleet.boot()
            return world.finish(fleet)
