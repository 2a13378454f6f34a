"""The result is written to a disk, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from spot_training import scratch


def test_a_result_is_written_to_a_disk_and_not_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nrun {memory} tmpfs rw 0 0\n")
    assert [scratch.is_memory(memory / "deep", mounts), scratch.is_memory(disk, mounts)] == [True, False]
    assert not scratch.is_memory(disk, tmp_path / "no such file")
    monkeypatch.setattr(scratch, "is_memory", lambda path: path.is_relative_to(memory))
    monkeypatch.setenv("SPOT_SCRATCH", str(memory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    assert scratch.result_folder("run", memory) == disk / "spot-result-run"


def test_what_an_interrupted_try_left_is_not_part_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "is_memory", lambda path: False)
    monkeypatch.setenv("SPOT_SCRATCH", str(tmp_path))
    (scratch.result_folder("run", tmp_path) / "half a model").write_text("torn")
    assert list(scratch.result_folder("run", tmp_path).iterdir()) == []


def test_where_all_is_memory_the_result_has_a_place_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "is_memory", lambda path: True)
    assert scratch.result_folder("run", tmp_path) == tmp_path / "spot-result-run"
