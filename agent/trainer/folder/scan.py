"""Scan: what is in a folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.store import StoreError

LOST_FOUND = "lost+found"  # the file system's own, at the top of a disk


class FolderError(StoreError):
    """The folder can't be saved or brought back."""


@dataclass(frozen=True)
class FolderEntry:
    """One thing in the folder; `path` is relative to it. A file's `size` bytes are at `offset` in the arena."""

    path: str
    kind: Literal["file", "folder", "link"]
    mode: int
    size: int = 0
    mtime_ns: int = 0
    offset: int = 0
    target: str = ""
    """Where a link leads, relative to its own place."""


def scan_folder(folder: Path) -> list[FolderEntry]:
    """All that is below `folder`, a folder before what is in it, files laid out one after the other.

    A link to something in the folder stays a link; one that leads to a file elsewhere is that file, for what lies
    elsewhere is not on the next VM.
    """
    entries: list[FolderEntry] = []
    offset = 0
    top = folder.resolve()
    for root, folders, names in os.walk(folder):
        if root == str(folder) and LOST_FOUND in folders and folder.is_mount():
            folders.remove(LOST_FOUND)
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(root) / name
            at = path.relative_to(folder).as_posix()
            try:
                if path.is_symlink() and (target := _inside(path, top)):
                    entries.append(FolderEntry(at, "link", 0, target=target))
                    continue
                info = path.stat()
            except (FileNotFoundError, RuntimeError):
                continue  # gone between listing and looking: the next scan will differ, and so we look again
            if stat.S_ISREG(info.st_mode):  # opening a pipe would wait for its writer
                entries.append(FolderEntry(at, "file", info.st_mode & 0o777, info.st_size, info.st_mtime_ns, offset))
                offset += info.st_size
            elif stat.S_ISDIR(info.st_mode) and not path.is_symlink():
                entries.append(FolderEntry(at, "folder", info.st_mode & 0o777))
    return entries


def _inside(link: Path, top: Path) -> str:
    """Where `link` leads, relative to its own place; empty where that is outside of `top`."""
    leads_to = (link.parent.resolve() / link.readlink()).resolve()
    return os.path.relpath(leads_to, link.parent.resolve()) if leads_to.is_relative_to(top) else ""
