"""Aside: a copy of the folder as it stands."""

from __future__ import annotations

from pathlib import Path

from spot_training.protocol.arena import Arena

from agent.trainer.folder.scan import FolderEntry, FolderError


def copy_into(arena: Arena, folder: Path, entries: list[FolderEntry]) -> None:
    """Read the files into the arena. Raises FolderError when one is shorter than it was."""
    for file in (entry for entry in entries if entry.kind == "file"):
        with (folder / file.path).open("rb") as source, arena.view[file.offset : file.offset + file.size] as into:
            if source.readinto(into) != file.size:
                raise FolderError(f"{folder / file.path} changed while it was copied")
