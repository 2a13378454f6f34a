"""Scan: what is in a program's folder, and by what each thing is known again."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from agent.checkpoint.listing import TOP, FolderEntry
from agent.store import StoreError
from agent.trainer.folder.loose import is_loose

LOST_FOUND = "lost+found"  # the file system's own, at the top of a disk
OURS = ".spot-"
"""How the names begin of what is ours at the top of a disk that is a checkpoint folder."""
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_FILE_MODE = 0o777
_FOLDER_MODE = 0o3777
"""Who may do what, and a folder's own group and sticky bit; no file runs as somebody else by a checkpoint's word."""


class FolderError(StoreError):
    """The folder can't be saved or brought back."""


def scan_folder(
    folder: Path, loose: Callable[[str], bool] = is_loose, *, left_out: list[str] | None = None
) -> list[FolderEntry]:
    """The folder and all that is below it, a folder before what is in it. `loose` tells by its path what is written to
    all the time. Empty where there is no folder. Links to folders elsewhere are not in it, but in `left_out`.

    A link to something in the folder stays a link; one that leads to a file elsewhere is that file, for what lies
    elsewhere is not on the next VM. Pipes, sockets and devices are left out.
    """
    top = os.path.realpath(folder)
    try:
        info = os.stat(top)
    except FileNotFoundError:
        return []
    disk = os.path.ismount(top)
    entries = [FolderEntry(TOP, "folder", info.st_mode & _FOLDER_MODE, uid=info.st_uid, gid=info.st_gid)]
    first: dict[tuple[int, int], str] = {}  # names of files that have several
    waiting = [""]
    while waiting:
        at = waiting.pop()
        below = []
        for entry in _sorted(os.path.join(top, at)):
            path = f"{at}{entry.name}"
            if disk and not at and (entry.name == LOST_FOUND or entry.name.startswith(OURS)):
                continue
            try:
                found = _look(entry, path, top, loose)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                continue  # gone between listing and looking: the next scan will differ, and so we look again
            if found is None:
                if left_out is not None and entry.is_symlink():
                    left_out.append(path)
                continue
            if found.kind == "folder":
                below.append(f"{path}/")
            elif found.kind == "file" and entry.stat(follow_symlinks=False).st_nlink > 1:
                name = first.setdefault(found.inode, path)
                if name != path:
                    found = found._replace(kind="hard", target=name)
            entries.append(found)
        waiting += reversed(below)
    return entries


def digest_of(entries: Iterable[FolderEntry]) -> str:
    """What tells two scans of one disk apart, in a few letters. What is written to all the time does not count."""
    state = hashlib.blake2b(digest_size=16)
    for entry in entries:
        if not entry.loose:
            state.update(repr(tuple(entry)).encode())
    return state.hexdigest()


def has_files(entries: Iterable[FolderEntry]) -> bool:
    return any(entry.kind == "file" for entry in entries)


def _sorted(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:  # as in `scan_folder`
        return


def _look(entry: os.DirEntry[str], path: str, top: str, loose: Callable[[str], bool]) -> FolderEntry | None:
    info = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        if (target := _inside(entry.path, top)) is not None:
            return FolderEntry(path, "link", 0, 0, info.st_mtime_ns, info.st_uid, info.st_gid, target)
        info = entry.stat()
        if stat.S_ISDIR(info.st_mode):
            return None
    if stat.S_ISREG(info.st_mode):  # opening a pipe would wait for its writer
        return FolderEntry(
            path, "file", info.st_mode & _FILE_MODE, info.st_size, info.st_mtime_ns, info.st_uid, info.st_gid,
            ctime_ns=info.st_ctime_ns, inode=(info.st_dev, info.st_ino), loose=loose(path),
        )  # fmt: skip
    if stat.S_ISDIR(info.st_mode):
        return FolderEntry(
            path, "folder", info.st_mode & _FOLDER_MODE, 0, info.st_mtime_ns, info.st_uid, info.st_gid
        )  # fmt: skip
    return None


def _inside(link: str, top: str) -> str | None:
    """Where `link` leads, relative to its own place: as it says itself, unless that goes by way of the outside. None
    where it leads outside of `top`."""
    says = os.readlink(link)
    place = os.path.dirname(link)
    leads_to = os.path.realpath(os.path.join(place, says))
    if leads_to != top and not leads_to.startswith(f"{top}/"):
        return None
    if not os.path.isabs(says) and not os.path.relpath(os.path.normpath(os.path.join(place, says)), top).startswith(
        ".."
    ):
        return says
    return os.path.relpath(leads_to, place)
