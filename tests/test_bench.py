"""`make bench` at a tiny size: every measurement runs, says what it documents, and both sides hold the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from rich.console import Console

from infra.bench import flood, folder, footprint, notice, pictures, restore, save, stall
from infra.bench.__main__ import NAMES, Settings, run
from infra.bench.figures import BenchError
from infra.bench.rig import BUCKET, Rig, running_rig
from infra.local.storage.control import running_storage

pytestmark = pytest.mark.slow

SIZE = 8_000_000


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("out") / "results.json"
    run(Settings(size=SIZE, tries=1, notices=3, polls=2, idle_s=0.2), out, Console(quiet=True))
    return dict(json.loads(out.read_text()))


def test_the_results_file_has_what_each_measurement_documents(results: dict[str, Any]) -> None:
    assert set(results) == {"machine", "settings", "state", "peer", "targets", *NAMES}
    assert set(results["machine"]) >= {"date", "processor", "cores", "memory_gb", "kernel"}
    assert_documented(results["stall"], stall.Result)
    assert_documented(results["notice"], notice.Result)
    assert_documented(results["pictures"], pictures.Result)
    assert_documented(results["flood"], flood.Result)
    assert_documented(results["footprint"], footprint.Result)
    assert_documented(results["folder"], folder.Result)
    for throttle in ("unthrottled", "throttled"):
        assert_documented(results["save"][throttle], save.Result)
        assert_documented(results["restore"][throttle], restore.Result)
    assert results["save"]["notice_to_committed_s"] > 0
    for target in results["targets"]:
        assert set(target) == {"name", "value", "bound", "limit", "unit", "met"}
    assert len(results["targets"]) == 19


def test_both_sides_saved_and_restored_identical_bytes(results: dict[str, Any]) -> None:
    assert results["state"]["bytes"] >= SIZE
    assert results["state"]["tensors"] == 800  # 600, and the optimizer's 200 step counters
    assert results["stall"]["identical"]
    assert results["folder"]["identical"]
    for throttle in ("unthrottled", "throttled"):
        assert results["save"][throttle]["identical"]
        assert results["restore"][throttle]["identical"]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_storage() as storage:
        storage.create_bucket(BUCKET)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        with running_rig(storage, tmp_path, size=SIZE) as rig:
            rig.ask("choose_way", [tmp_path])
            yield rig


def test_figures_of_other_bytes_are_no_result(rig: Rig) -> None:
    rig.save_ours()
    rig.ask("save_peer")
    save.check(rig)
    rig.ask("update")  # now the bucket holds, of both sides, what the trainer held a step ago
    with pytest.raises(BenchError, match=r"ours: .* tensors are not what the trainer holds"):
        save.check(rig)
    with pytest.raises(BenchError, match="ours: what was restored is not what was saved"):
        restore.measure(rig, tries=1)
    rig.ask("update")
    rig.save_ours()
    with pytest.raises(BenchError, match=r"peer: .* tensors are not what the trainer holds"):
        save.check(rig)
    with pytest.raises(BenchError, match="peer: what was restored is not what was saved"):
        restore.measure(rig, tries=1)


def assert_documented(found: dict[str, Any], documented: type) -> None:
    """The keys are those that the TypedDict names, all the way down."""
    hints = get_type_hints(documented)
    assert set(found) == set(hints)
    for key, hint in hints.items():
        if hasattr(hint, "__total__"):
            assert_documented(found[key], hint)
