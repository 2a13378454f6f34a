"""DCP, torch's distributed checkpoint, in a program of kind `command`: what it saves goes to the bucket by the agent.

    import torch.distributed.checkpoint as dcp
    from spot_training.dcp import StorageReader, StorageWriter

    reader, writer = StorageReader("saves"), StorageWriter("saves")      # `checkpoint_dir: saves`
    if reader.newest:
        dcp.load(state, storage_reader=reader)
    ...
    dcp.save(state, checkpoint_id=f"step-{step}", storage_writer=writer)  # or dcp.async_save

A save is whole when its `.metadata` is there, and then the agent is told: where a save is due, it holds this one before
`dcp.save` returns, and nothing that the program does to the folder afterwards changes it. What comes back is what the
program puts into `state`, random numbers and the place in the data included: nobody looks whether that is all, as a
session does.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch.distributed
from spot_training.link import SessionError
from spot_training.protocol.tell import saved
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

__all__ = ["StorageReader", "StorageWriter"]

_WHOLE = ".metadata"


class StorageWriter(FileSystemWriter):
    """Saves to `folder`, each save in a folder of its own that `checkpoint_id` names, and says so to the agent.

    `keep`: so many whole saves stay; older ones are deleted. `options`: as for torch's `FileSystemWriter`.

    Raises:
        SessionError: the processes are on several machines.
        NotNoted: the agent does not keep this folder; it says why.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2, **options: Any) -> None:
        _refuse_several_machines()
        if keep < 1:
            raise ValueError(f"keep={keep}: the newest save has to stay")
        super().__init__(folder, **options)
        self._folder, self._keep = Path(folder), keep
        self._named = False

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._named = bool(checkpoint_id)
        super().reset(self._folder / (checkpoint_id or ""))

    def set_up_storage_writer(self, is_coordinator: bool, *given: Any, **named: Any) -> None:
        if not self._named:
            raise SessionError('say which save it is: dcp.save(..., checkpoint_id=f"step-{step}")')
        super().set_up_storage_writer(is_coordinator, *given, **named)

    def finish(self, metadata: Any, results: Any) -> None:
        super().finish(metadata, results)
        self._named = False  # the next one has a name of its own
        saved(self.path)
        for old in _whole(self._folder)[: -self._keep]:
            (old / _WHOLE).unlink()  # first: what is deleted by half is no save
            shutil.rmtree(old)


class StorageReader(FileSystemReader):
    """Loads from `folder` the save that `checkpoint_id` names, or the newest.

    Raises:
        SessionError: the processes are on several machines.
        FileNotFoundError: there is no save; ask `newest` before.
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        _refuse_several_machines()
        super().__init__(folder, **options)
        self._folder, self._named = Path(folder), False

    @property
    def newest(self) -> str | None:
        """The name of the newest whole save; None where there is none."""
        found = _whole(self._folder)
        return found[-1].name if found else None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._named = bool(checkpoint_id)
        super().reset(self._folder / (checkpoint_id or ""))

    def read_metadata(self, *given: Any, **named: Any) -> Any:
        if not self._named:
            self.path = self._folder / (self.newest or "")
        return super().read_metadata(*given, **named)

    def read_data(self, plan: Any, planner: Any) -> Any:
        self._named = False  # the next load is of the newest again
        return super().read_data(plan, planner)


def _whole(folder: Path) -> list[Path]:
    """The whole saves, the newest last: by the numbers in their names, where those are alike."""
    saves = [each.parent for each in folder.glob(f"*/{_WHOLE}")]
    if len({re.sub(r"\d+", "#", save.name) for save in saves}) == 1:
        return sorted(saves, key=lambda save: [int(number) for number in re.findall(r"\d+", save.name)])
    return sorted(saves, key=lambda save: (save / _WHOLE).stat().st_mtime_ns)


def _refuse_several_machines() -> None:
    """Raises SessionError: the folder is one machine's, so that the others' parts would not be in it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    ranks, here = torch.distributed.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if ranks > here:
        raise SessionError(
            f"{ranks} processes, and {here} of them on this machine: a run is one machine's, and its checkpoint "
            "folder holds only what is saved here"
        )
