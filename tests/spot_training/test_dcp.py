"""DCP: what is saved comes back, the newest whole save first, and what can't be kept is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from spot_training.dcp import StorageReader, StorageWriter
from spot_training.link import SessionError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save


def save(folder: Path, step: int, name: str = "") -> None:
    state = {"weights": torch.full((3,), step), "step": step}
    dcp_save(state, checkpoint_id=name or f"step-{step}", storage_writer=StorageWriter(folder, sync_files=False))


@pytest.mark.filterwarnings("ignore:torch.distributed")
def test_the_newest_whole_save_comes_back_and_older_ones_go(tmp_path: Path) -> None:
    assert StorageReader(tmp_path).newest is None
    for step in (8, 9, 10):
        save(tmp_path, step)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-10", "step-9"]
    (tmp_path / "step-11").mkdir()  # the process was killed in it
    (tmp_path / "step-11" / "__0_0.distcp").write_bytes(b"half")
    reader = StorageReader(tmp_path)
    state: dict[str, Any] = {"weights": torch.zeros(3), "step": 0}
    load(state, storage_reader=reader)
    assert reader.newest == "step-10"
    assert (state["step"], state["weights"].tolist()) == (10, [10, 10, 10])
    load(state, checkpoint_id="step-9", storage_reader=reader)
    assert state["step"] == 9
    load(state, storage_reader=reader)
    assert state["step"] == 10


@pytest.mark.filterwarnings("ignore:torch.distributed")
def test_saves_without_a_name_and_several_machines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointException, match="say which save it is"):
        dcp_save({"step": 1}, storage_writer=StorageWriter(tmp_path))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    StorageReader(tmp_path)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    for kind in (StorageWriter, StorageReader):
        with pytest.raises(SessionError, match="2 processes, and 1 of them on this machine"):
            kind(tmp_path)
