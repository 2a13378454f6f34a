"""Pictures on a disk of this VM, so that the bucket is read once: shared by all processes, and kept over restarts.

    FOLDER/lock, total            one process at a time counts; `total` is the bytes that are taken
    FOLDER/DATASET/ab/ab12...     a picture's bytes under a digest of its name, size and checksum

A file is written aside and renamed, counts from its beginning on, and is held against its checksum when it is read: a
damaged one is fetched again. Room is made by removing what another data set left. The data set's own pictures stay: of
epochs that go through all of them in another order each, a cache that replaced pictures would find few again (with room
for half of them 15 %, where it forgets the least recently used, against 50 % where it keeps what it has).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from crc32c import crc32c

from workloads.pictures.batch import DataError, Image

_ABANDONED_S = 3600.0
_ASIDE = ".aside"
_ROOM = 0.95
"""Of the size: what is left where room is made, so that it is made seldom."""


class Cache:
    """At most `size` bytes below `folder`, for pictures of `dataset`.

    Raises:
        DataError: the folder can't be used.
    """

    def __init__(self, folder: Path, size: int, dataset: str) -> None:
        self.folder, self.size = folder, size
        self._own = folder / hashlib.sha256(dataset.encode()).hexdigest()[:16]
        self._full = False
        self._told = False
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._count()
        except OSError as error:
            raise DataError(
                f"can't use the cache of pictures {folder}: {error.strerror}; set SPOT_CACHE_DIR"
            ) from error

    def get(self, image: Image) -> bytes | None:
        """The picture's bytes, or None where they are to be fetched."""
        path = self._path(image)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(f"can't be read ({error.strerror})")
            return None
        if len(content) == image.size and crc32c(content) == image.crc:
            return content
        self._drop(path)
        return None

    def put(self, image: Image, content: bytes) -> bool:
        """Keep them, where there is room. A cache that can't be written is told once, and done without."""
        if self._full or len(content) > self.size:
            return False
        path = self._path(image)
        try:
            aside = self._reserve(path, len(content))
            if aside is None:
                self._full = True
                return False
            try:
                with aside.open("r+b") as file:  # it keeps the size that is counted
                    file.write(content)
                return self._publish(aside, path)
            except BaseException:
                self._drop(aside)
                raise
        except OSError as error:
            self._full = True
            self._tell(f"can't be written ({error.strerror})")
            return False

    def _path(self, image: Image) -> Path:
        name = f"{image.file}\0{image.start}\0{image.size}\0{image.crc}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self._own / digest[:2] / digest

    def _reserve(self, path: Path, size: int) -> Path | None:
        """A file of that size to write to, which counts from now on; None: there is no room."""
        with self._locked():
            total = self._total()
            if total + size > self.size:
                total = self._make_room(total, size)
            if total + size > self.size:
                return None
            path.parent.mkdir(exist_ok=True)
            aside = path.with_name(f"{uuid.uuid4().hex}{_ASIDE}")
            with aside.open("xb") as file:
                file.truncate(size)
            self._write_total(total + size)
            return aside

    def _publish(self, aside: Path, path: Path) -> bool:
        with self._locked():
            if path.exists():  # another process was quicker
                self._write_total(self._total() - aside.stat().st_size)
                aside.unlink()
                return False
            aside.rename(path)
            return True

    def _make_room(self, total: int, count: int) -> int:
        """Remove what other data sets left, the longest unused folders first."""
        for folder in sorted(self._others(), key=lambda each: each.stat().st_mtime):
            for path, size in _files(folder):
                if total + count <= self.size * _ROOM:
                    break
                if not path.name.endswith(_ASIDE):
                    path.unlink(missing_ok=True)
                    total -= size
            with contextlib.suppress(OSError):  # not empty
                for inner in (*folder.iterdir(), folder):
                    inner.rmdir()
        self._write_total(total)
        return total

    def _others(self) -> list[Path]:
        return [each for each in self.folder.iterdir() if each.is_dir() and each != self._own]

    def _count(self) -> None:
        """What is really there: a process may have died between counting and writing."""
        total = 0
        for folder in (self._own, *self._others()):
            for path, size in _files(folder):
                if path.name.endswith(_ASIDE) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink(missing_ok=True)
                    continue
                total += size
        os.utime(self._own)
        if total > self.size:
            total = self._make_room(total, 0)
        for path, size in _files(self._own):  # the bound was lowered
            if total <= self.size:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._write_total(total)

    def _drop(self, path: Path) -> None:
        """A damaged file gives its room back."""
        with contextlib.suppress(OSError), self._locked():
            size = path.stat().st_size
            path.unlink()
            self._write_total(self._total() - size)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # its holders do no more than count and unlink
            yield

    def _total(self) -> int:
        try:
            return max(0, int((self.folder / "total").read_text()))
        except (FileNotFoundError, ValueError):
            return sum(size for folder in (self._own, *self._others()) for _, size in _files(folder))

    def _write_total(self, total: int) -> None:
        (self.folder / "total").write_text(str(total))

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            print(
                f"the cache of pictures {self.folder} {what}: they are fetched each time", file=sys.stderr, flush=True
            )


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for inner in os.scandir(folder):
        if inner.is_dir():
            for entry in os.scandir(inner.path):
                with contextlib.suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat().st_size
