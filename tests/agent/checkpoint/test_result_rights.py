"""A result in a bucket where the VM may create and read, and delete below rolling/ alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.checkpoint import results
from agent.checkpoint.line import Line
from agent.checkpoint.lines import LinesObject
from agent.checkpoint.results import is_complete, store_result
from agent.store import open_store
from infra.local.storage.control import running_storage
from infra.local.storage.iam import ANONYMOUS, Rule

T = 20.0


def test_a_vms_rights_are_enough_for_a_large_result_through_resets_and_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PART", 10_000)
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    model = os.urandom(1_000_001)
    (tmp_path / "model.safetensors").write_bytes(model)
    with running_storage() as storage:
        storage.create_bucket("bucket")
        storage.iam(
            [
                Rule(identity=ANONYMOUS, actions=frozenset({"create", "get", "list"}), prefix="run/"),
                Rule(identity=ANONYMOUS, actions=frozenset({"delete"}), prefix="run/rolling/"),
            ]
        )
        storage.fault("reset", action="create", after_bytes=500, count=5)
        storage.fault("status", action="create", after_done=True, count=5)
        storage.fault("flip", action="create", after_bytes=700, count=2)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        store = open_store("gs://bucket/run")
        store_result(store, Line(store), tmp_path, attempt=1, claimant="us", step=12, lines=LinesObject(), timeout=T)
        assert is_complete(Line(store), timeout=T)
        assert store.read("results/00001/model.safetensors", timeout=T) == model
        assert store.list("rolling/", timeout=T) == []
        assert storage.pending_faults() == []
