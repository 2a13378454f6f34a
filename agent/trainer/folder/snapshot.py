"""Snapshot: bytes of a folder that stay as they are, or are found to be others by now."""

from __future__ import annotations

import mmap
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.checkpoint.listing import Extent, FolderEntry
from agent.checkpoint.source import Piece, Torn

_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@dataclass(frozen=True)
class Run:
    """Bytes from `at` on are those of a file from `start` on: an open one, or where `fd` is -1 `path`. `unchanged`:
    what it must be still once it was read; None where nobody else can write to it."""

    at: int
    size: int
    fd: int
    start: int
    path: str
    unchanged: tuple[int, int, tuple[int, int]] | None


class Snapshot:
    """A `Source`: what `take` found. `entries` are those it holds, `pieces` what goes to the bucket or is there."""

    def __init__(self) -> None:
        self.entries: list[FolderEntry] = []
        self.extents: dict[str, list[Extent]] = {}
        self.pieces: list[Piece] = []
        self.size = 0
        self.listing = (0, 0)
        """Where the list of files is: from, and how long."""
        self.torn: set[str] = set()
        """Paths that were written to in place."""
        self._runs: list[Run] = []
        self._starts: list[int] = []
        self._fds: list[int] = []
        self._buffers: list[mmap.mmap] = []
        self._lock = threading.Lock()

    @contextmanager
    def read(self, offset: int, size: int) -> Iterator[memoryview]:
        with self._lock:
            run = self._runs[bisect_right(self._starts, offset) - 1]
            fitting = [each for each in self._buffers if len(each) >= size]
            buffer = min(fitting, key=len) if fitting else None
            if buffer:
                self._buffers.remove(buffer)
        if buffer is None:
            buffer = mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, flags=_PRIVATE)
        try:
            with memoryview(buffer) as whole, whole[:size] as into:
                self._fill(run, run.start + offset - run.at, into)
                yield into
        finally:
            with self._lock:
                self._buffers.append(buffer)

    def _fill(self, run: Run, start: int, into: memoryview) -> None:
        try:
            fd = run.fd if run.fd >= 0 else os.open(run.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Torn(f"{run.path} is gone, and was not saved yet") from None
        try:
            done = 0
            while done < len(into) and (count := os.preadv(fd, [into[done:]], start + done)):
                done += count
            if done < len(into) or (run.unchanged and content_of(os.fstat(fd)) != run.unchanged):
                self.torn.add(run.path)
                raise Torn(f"{run.path} was written to while it was saved")
        finally:
            if run.fd < 0:
                os.close(fd)

    def close(self) -> None:
        with self._lock:
            for fd in self._fds:
                os.close(fd)
            self._fds.clear()
            self._buffers.clear()

    def hold(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def add(self, run: Run) -> None:
        self._runs.append(run)
        self._starts.append(run.at)
        self.size = run.at + run.size


def content_of(info: os.stat_result) -> tuple[int, int, tuple[int, int]]:
    """What a write changes; a program that renames or deletes the file changes none of it."""
    return info.st_size, info.st_mtime_ns, (info.st_dev, info.st_ino)
