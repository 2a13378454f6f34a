"""Any program as a trainer (`kind: command`): its checkpoint folder is committed whole, and brought back whole.

The program saves to its folder in its own way, whenever it likes and when it gets the notice signal. The agent copies
the folder into an arena once nothing in it changes any more, checks that nothing changed while it copied, and commits
that like any other snapshot: manifest last. `step` counts these saves.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import structlog
from spot_training.protocol.arena import Arena, ArenaError
from spot_training.protocol.messages import SaveAnswer, SaveReason, Staged

from agent.checkpoint.slots import let_go
from agent.store import StoreError
from agent.trainer.host import Host
from agent.trainer.process import Trainer

log = structlog.get_logger()

_ASIDE = ".restoring"
_LOST_FOUND = "lost+found"  # the file system's own, at the top of a disk
_SETTLED_S = 1.0
_POLL_S = 0.1
_PERIODIC_TIMEOUT_S = 60.0


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
        if root == str(folder) and _LOST_FOUND in folders and folder.is_mount():
            folders.remove(_LOST_FOUND)
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


def copy_into(arena: Arena, folder: Path, entries: list[FolderEntry]) -> None:
    """Read the files into the arena. Raises FolderError when one is shorter than it was."""
    for file in (entry for entry in entries if entry.kind == "file"):
        with (folder / file.path).open("rb") as source, arena.view[file.offset : file.offset + file.size] as into:
            if source.readinto(into) != file.size:
                raise FolderError(f"{folder / file.path} changed while it was copied")


def write_folder(view: memoryview, files: list[dict[str, Any]], folder: Path) -> None:
    """Put a committed folder back, aside first and then renamed; a mount point, which can't be, entry by entry.

    Raises:
        FolderError: the manifest names a path outside the folder, or bytes it does not have, or the disk refuses.
    """
    folder = folder.resolve()  # a link to a larger disk stays one
    aside = folder / _ASIDE if folder.is_mount() else folder.with_name(folder.name + _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        for file in files:
            target = aside / file["path"]
            if not target.resolve().is_relative_to(aside):
                raise FolderError(f"the checkpoint names a file outside its folder: {file['path']!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            match file.get("kind", "file"):
                case "folder":
                    target.mkdir()
                case "link":
                    target.symlink_to(file["target"])
                    if not target.resolve().is_relative_to(aside):
                        raise FolderError(f"the checkpoint has a link that leads outside its folder: {file['path']!r}")
                case _:
                    content = view[file["offset"] : file["offset"] + file["size"]]
                    if len(content) != file["size"]:
                        raise FolderError(f"the checkpoint is too short for {file['path']!r}")
                    with target.open("xb") as out:
                        out.write(content)
                    target.chmod(file["mode"] & 0o777)
        if folder.is_mount():
            _refill(folder, aside)
        elif folder.exists():
            old = folder.with_name(folder.name + ".replaced")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            aside.rename(folder)
            shutil.rmtree(old)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(folder)
        for file in reversed(files):  # a folder that may not be written could neither have been filled nor moved
            if file.get("kind") == "folder":
                (folder / file["path"]).chmod(file["mode"] & 0o777)
    except OSError as error:
        raise FolderError(f"the checkpoint can't be put back into {folder}: {error}") from error


def _refill(folder: Path, aside: Path) -> None:
    """Replace all that is in `folder` by what is in `aside`. Cut short, the next restore does it again."""
    for entry in folder.iterdir():
        if entry.name in (_ASIDE, _LOST_FOUND):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for entry in aside.iterdir():
        entry.rename(folder / entry.name)
    aside.rmdir()


class FolderLink:
    """Plays the trainer's part for a program that knows nothing of us. `on_saved` hears the number of each snapshot,
    and how many seconds ago the program wrote the last of it: what it did since is not in there."""

    def __init__(self, host: Host, process: Trainer, on_saved: Callable[[int, float], None]) -> None:
        self._saver = host.saver
        self._process = process
        self._on_saved = on_saved
        self.why_none = ""
        self.folder = _folder_of(host)
        self._signal = signal.Signals[host.run.workload.notice_signal]
        self._last: list[FolderEntry] | None = None  # what the newest snapshot holds
        self._saving = asyncio.Lock()

    @staticmethod
    async def restore(host: Host, staged: Staged) -> None:
        """Put the folder back, before the program starts."""
        arena = host.saver.slots[staged.arena].arena
        await asyncio.to_thread(write_folder, arena.view, staged.state["files"], _folder_of(host))

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Tell the program (only when it is to stop), wait until its folder stands still, copy and commit it."""
        async with self._saving:
            self.why_none = f"nothing of {self.folder} was saved in {timeout:.1f} s"
            try:
                return await asyncio.wait_for(self._save(reason, patience=timeout / 2 if hold else 0.0), timeout)
            except TimeoutError:
                self.why_none = f"{self.folder} did not stand still within {timeout:.1f} s"
                log.error("folder_not_still", folder=str(self.folder), waited_s=round(timeout, 1))
            except (FolderError, ArenaError, OSError) as error:
                self.why_none = f"{self.folder} could not be saved: {error}"
                log.error("folder_not_saved", folder=str(self.folder), error=str(error))
            return "none"

    async def committed(self, index: int, step: int) -> None:
        """The agent keeps the arenas itself here: nothing to free."""

    async def abandoned(self, index: int, step: int, why: str) -> None:
        self._last = None

    async def _save(self, reason: SaveReason, *, patience: float) -> SaveAnswer:
        """`patience`: tell the program to save, and give it so many seconds to begin."""
        if patience and self._process.running:
            self._process.signal(self._signal)
        files = await self._settled(patience)
        if files == self._last or not any(entry.kind == "file" for entry in files):
            return "unchanged"
        begun = time.monotonic()
        size = max(1, sum(file.size for file in files))
        arena = await asyncio.to_thread(Arena.create, size)
        try:
            await asyncio.to_thread(copy_into, arena, self.folder, files)
            if await asyncio.to_thread(scan_folder, self.folder) != files:
                raise FolderError("it changed while it was copied; the next save tries again")
        except BaseException:
            let_go([arena])
            raise
        saver = self._saver
        step = max(saver.staged_step, saver.committed_step) + 1
        saver.share(0, [arena])
        listed = [{key: value for key, value in asdict(each).items() if key != "mtime_ns"} for each in files]
        copy_s = time.monotonic() - begun
        await saver.staged(Staged(0, step, size, {"step": step, "files": listed}, reason, copy_s))
        self._on_saved(step, max(0.0, time.time() - max(each.mtime_ns for each in files) / 1e9))
        self._last = files
        return "staged"

    async def _settled(self, patience: float) -> list[FolderEntry]:
        """The folder's files once nothing has changed for a second, or once the program has ended. Within `patience`
        seconds nothing counts as settled before a first change."""
        before = first = await asyncio.to_thread(scan_folder, self.folder)
        begun = still_since = time.monotonic()
        while self._process.running:
            now = time.monotonic()
            waiting = before == first and now - begun < patience
            if not waiting and now - still_since >= _SETTLED_S:
                break
            await asyncio.sleep(_POLL_S)
            found = await asyncio.to_thread(scan_folder, self.folder)
            if found != before:
                before, still_since = found, time.monotonic()
        return await asyncio.to_thread(scan_folder, self.folder)


def _folder_of(host: Host) -> Path:
    folder = host.run.workload.checkpoint_dir
    assert folder is not None
    return Path(folder)
