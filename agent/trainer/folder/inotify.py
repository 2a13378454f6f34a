"""Inotify: the kernel says that something in a folder has changed, so that nobody has to look all the time.

It only wakes: what has changed is looked up. Where the kernel has no watch left, or the folder is not there yet, the
wait is a short one instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

_CREATE, _MOVED_TO, _MOVED_FROM, _DELETE = 0x100, 0x80, 0x40, 0x200
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MASK = _CREATE | _MOVED_TO | _MOVED_FROM | _DELETE | _MODIFY | _ATTRIB | _CLOSE_WRITE
_ONLY_FOLDERS = 0x01000000
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK and IN_CLOEXEC are these
_MOST = 4096  # folders watched: below so many are looked at by the clock alone
_BLIND_S = 0.2
_LIBC = ctypes.CDLL(None, use_errno=True)


class Changes:
    """What changes below `folder` wakes `wait`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = asyncio.Event()
        self._blind = False
        self._fd = _LIBC.inotify_init1(_FLAGS)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._on_events)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def watch(self, folders: list[str]) -> None:
        """Hear of these, relative to the folder; "." is the folder itself. Said again, it is as good: one that was made
        anew has lost its watch."""
        self._blind = sum(map(self._add, folders[:_MOST])) < len(folders)

    def _add(self, name: str) -> bool:
        path = os.fsencode(self._folder / name)
        return self._fd >= 0 and int(_LIBC.inotify_add_watch(self._fd, path, _MASK | _ONLY_FOLDERS)) >= 0

    def _on_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 1 << 16)
        self._changed.set()

    async def wait(self, timeout: float) -> bool:
        """Until something changes, for `timeout` seconds at most: whether it did."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(timeout, _BLIND_S) if self._blind else timeout)
        changed = self._changed.is_set() or self._blind
        self._changed.clear()
        return changed
