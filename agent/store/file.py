"""file:// - objects in a folder of this machine, or of a file server.

An object is a symbolic link `NAME -> .objects/GENERATION-SIZE-CRC32C`. The bytes are written aside and made
durable first; making the link is the one step that publishes them, together with their checksum, and it
fails if the name is taken. So whenever the process or the machine dies, an object is whole or absent.
Other programs read the objects as plain files. Copy such a folder with `cp -a` or `rsync -a`.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from crc32c import crc32c

from agent.store.base import (
    AlreadyExists,
    Buffer,
    Corrupt,
    Forbidden,
    NotFound,
    StoredObject,
    StoreError,
    Unavailable,
    check_name,
)
from agent.store.crc import combine

_CONTENT = ".objects"
_PARTIAL = ".partial"
_CHUNK = 8 << 20  # bytes between two looks at the clock
_ABANDONED = 3600.0  # seconds after which a partial file has surely lost its writer
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileStore:
    """A `Store` in a folder. Needs symbolic and hard links, as any POSIX file system has."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or url
        self._root = Path(unquote(url.removeprefix("file://")))
        self._content = self._root / _CONTENT

    def create(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        path = self._path(name)
        with _explained(path, len(memoryview(data).cast("B"))):
            content = self._store(name, memoryview(data).cast("B"), time.monotonic() + timeout)
            return self._publish(name, path, content)

    def replace(self, name: str, data: Buffer, *, timeout: float) -> StoredObject:
        path = self._path(name)
        with _explained(path, len(memoryview(data).cast("B"))):
            content = self._store(name, memoryview(data).cast("B"), time.monotonic() + timeout)
            aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
            self._link(aside, content)
            old = _target(path)
            aside.rename(path)
            _sync_folder(path.parent)
            if old is not None:
                old.path.unlink(missing_ok=True)
            return content.stored(name)

    def read(self, name: str, *, timeout: float) -> bytes:
        with self._open(name) as (fd, content):
            into = bytearray(content.size)
            self._fill(name, fd, content, memoryview(into), time.monotonic() + timeout)
            return bytes(into)

    def read_range(self, name: str, start: int, size: int, *, timeout: float) -> bytes:
        with self._open(name) as (fd, _):
            content = os.pread(fd, size, start)
        if len(content) != size:
            raise Corrupt(f"{self.url}/{name} has no {size} bytes from {start} on: it is not what it was")
        return content

    def read_into(self, name: str, into: memoryview, *, timeout: float) -> int:
        with self._open(name) as (fd, content):
            view = into.cast("B")
            if content.size != len(view):
                raise Corrupt(
                    f"{self.url}/{name} has {content.size} bytes where {len(view)} were expected: "
                    "it is not the object its manifest speaks of"
                )
            return self._fill(name, fd, content, view, time.monotonic() + timeout)

    def folders(self, prefix: str = "", *, timeout: float) -> builtins.list[str]:
        deadline = time.monotonic() + timeout
        top = self._root / prefix
        with _explained(top):
            try:
                below = sorted(each.name for each in os.scandir(top) if each.is_dir(follow_symlinks=False))
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [f"{prefix}{each}/" for each in below if each != _CONTENT and self._holds(top / each, deadline)]

    def _holds(self, folder: Path, deadline: float) -> bool:
        """Whether there is an object below it: a folder stays when its last object goes."""
        for each, _, files in os.walk(folder):
            _check_deadline(deadline, f"looking into {each}")
            if any(not file.endswith(_PARTIAL) and _target(Path(each, file)) for file in files):
                return True
        return False

    def list(self, prefix: str = "", *, timeout: float, limit: int | None = None) -> builtins.list[StoredObject]:
        deadline = time.monotonic() + timeout
        found = []
        # Only the folders that can hold such names are walked.
        top = self._root / prefix.rpartition("/")[0]
        with _explained(top):
            for folder, folders, files in os.walk(top):
                _check_deadline(deadline, f"listing {folder}")
                folders[:] = [each for each in folders if each != _CONTENT]
                for file in files:
                    path = Path(folder, file)
                    name = path.relative_to(self._root).as_posix()
                    if not name.startswith(prefix) or name.endswith(_PARTIAL):
                        continue
                    content = _target(path)
                    if content is not None:
                        found.append(content.stored(name))
        return sorted(found, key=lambda each: each.name)[:limit]

    def copy(self, source: str, target: str, *, timeout: float) -> StoredObject:
        path = self._path(target)
        with _explained(path):
            for _ in range(3):  # the source may be replaced under our hands
                old = _target(self._path(source))
                if old is None:
                    raise self._not_found(source)
                content = self._new_content(old.size, old.crc32c)
                # Content never changes once written, so that a second name for it is a copy.
                with contextlib.suppress(FileNotFoundError):
                    content.path.hardlink_to(old.path)
                    return self._publish(target, path, content)
            raise self._not_found(source)

    def compose(self, name: str, sources: Sequence[str], *, size: int, crc32c: int, timeout: float) -> StoredObject:
        path, deadline = self._path(name), time.monotonic() + timeout

        def join(into: int) -> tuple[int, int]:
            pieces = []
            for source in sources:
                with self._open(source) as (fd, content):
                    done = 0
                    while count := os.sendfile(into, fd, done, _CHUNK):
                        _check_deadline(deadline, f"joining {self.url}/{name}")
                        done += count
                    if done != content.size:
                        raise Corrupt(f"{self.url}/{source} is damaged: {done} of {content.size} bytes are there")
                    pieces.append((content.crc32c, content.size))
            joined = sum(each for _, each in pieces), combine(pieces)
            if joined != (size, crc32c):
                raise Corrupt(f"{self.url}/{name} would be joined to other content than its parts'")
            return joined

        with _explained(path, size):
            return self._publish(name, path, self._write(join))

    def delete(self, name: str, *, timeout: float) -> None:
        path = self._path(name)
        with _explained(path):
            content = _target(path)
            if content is None:
                return
            path.unlink(missing_ok=True)
            _sync_folder(path.parent)  # the name goes before the content: never a name without content
            content.path.unlink(missing_ok=True)

    def delete_many(self, names: Iterable[str], *, timeout: float) -> dict[str, StoreError]:
        deadline = time.monotonic() + timeout
        stayed: dict[str, StoreError] = {}
        for name in names:
            try:
                _check_deadline(deadline, f"deleting {self.url}/{name}")
                self.delete(name, timeout=timeout)
            except StoreError as error:
                stayed[name] = error
        return stayed

    def check(self, *, timeout: float) -> None:
        """Make the folder if need be, see that it can be written, and sweep what dead writers left."""
        with _explained(self._root):
            self._content.mkdir(parents=True, exist_ok=True)
            probe = self._content / f"{uuid.uuid4().hex}{_PARTIAL}"
            probe.touch(exist_ok=False)
            probe.unlink()
            for partial in self._content.glob(f"*{_PARTIAL}"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - partial.stat().st_mtime > _ABANDONED:
                        partial.unlink()

    def warm(self, connections: int, *, timeout: float) -> None:
        """There is nothing to do ahead on a disk."""

    def _path(self, name: str) -> Path:
        if _CONTENT in check_name(name).split("/") or name.endswith(_PARTIAL):
            raise StoreError(f"not an object name: {name!r}; {_CONTENT} and *{_PARTIAL} are the store's own")
        return self._root / name

    def _new_content(self, size: int, crc: int) -> _Content:
        # A time first, so that generations grow; then something random, so that two never meet.
        generation = time.time_ns() << 20 | int.from_bytes(os.urandom(3)) >> 4
        return _Content(self._content / f"{generation:024x}-{size}-{crc:08x}", generation, size, crc)

    def _store(self, name: str, data: memoryview, deadline: float) -> _Content:
        def fill(into: int) -> tuple[int, int]:
            written = crc = 0
            while written < len(data):
                _check_deadline(deadline, f"writing {self.url}/{name}, {written} of {len(data)} bytes")
                chunk = data[written : written + _CHUNK]
                count = os.write(into, chunk)
                crc = crc32c(chunk[:count], crc)  # while it is in the processor's cache
                written += count
            return written, crc

        return self._write(fill)

    def _write(self, fill: Callable[[int], tuple[int, int]]) -> _Content:
        """Bring to the disk what `fill` writes to a descriptor, returning its size and CRC32C, under a name of its own.
        It is not an object yet."""
        _make_folder(self._content)
        partial = self._content / f"{uuid.uuid4().hex}{_PARTIAL}"
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try:
                size, crc = fill(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
            content = self._new_content(size, crc)
            partial.rename(content.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(self._content)
        return content

    def _link(self, path: Path, content: _Content) -> None:
        _make_folder(path.parent)
        try:
            path.symlink_to(os.path.relpath(content.path, path.parent))
        except BaseException:
            content.path.unlink(missing_ok=True)
            raise

    def _publish(self, name: str, path: Path, content: _Content) -> StoredObject:
        try:
            self._link(path, content)
        except FileExistsError:
            there = _target(path)
            if there is not None and (there.size, there.crc32c) == (content.size, content.crc32c):
                return there.stored(name)
            what = f"{there.size} bytes, crc32c {there.crc32c:08x}" if there else "not one of this store's objects"
            raise AlreadyExists(
                f"{self.url}/{name} exists with other content ({what}; ours: {content.size} bytes, "
                f"crc32c {content.crc32c:08x}). Objects are never overwritten: choose another name"
            ) from None
        _sync_folder(path.parent)
        return content.stored(name)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[tuple[int, _Content]]:
        path = self._path(name)
        with _explained(path):
            fd, content = self._open_content(name, path)
            try:
                yield fd, content
            finally:
                os.close(fd)

    def _open_content(self, name: str, path: Path) -> tuple[int, _Content]:
        for _ in range(3):  # between the two steps another process may replace the object
            content = _target(path)
            if content is None:
                raise self._not_found(name)
            with contextlib.suppress(FileNotFoundError):
                return os.open(content.path, os.O_RDONLY | os.O_CLOEXEC), content
        raise Corrupt(f"{path} has lost its content in {self._content}. Was the folder copied without it?")

    def _fill(self, name: str, fd: int, content: _Content, view: memoryview, deadline: float) -> int:
        crc, done = 0, 0
        actual = os.fstat(fd).st_size
        if actual == content.size:
            while done < len(view):
                _check_deadline(deadline, f"reading {self.url}/{name}, {done} of {len(view)} bytes")
                chunk = view[done : done + _CHUNK]
                count = os.readv(fd, [chunk])
                if count == 0:
                    break
                crc = crc32c(chunk[:count], crc)
                done += count
        if actual != content.size or done != content.size or crc != content.crc32c:
            raise Corrupt(
                f"{self.url}/{name} is damaged: {actual} bytes, crc32c {crc:08x}, where {content.size} bytes, "
                f"crc32c {content.crc32c:08x} were written. Use an older checkpoint and check the disk"
            )
        return crc

    def _not_found(self, name: str) -> NotFound:
        return NotFound(f"{self.url}/{name} does not exist")


@dataclass(frozen=True)
class _Content:
    """The bytes behind a name; what is known of them is in their file's name."""

    path: Path
    generation: int
    size: int
    crc32c: int

    def stored(self, name: str) -> StoredObject:
        return StoredObject(name, self.size, self.crc32c, self.generation, (self.generation >> 20) / 1e9)


def _target(path: Path) -> _Content | None:
    """What `path` is a name for, or None if there is no object of that name."""
    try:
        target = path.parent / path.readlink()
        generation, size, crc = target.name.split("-")
        return _Content(target, int(generation, 16), int(size), int(crc, 16))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.EINVAL:
            return None  # a plain file or somebody else's link
        raise


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_deadline(deadline: float, doing: str) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(f"out of time while {doing}")


@contextlib.contextmanager
def _explained(path: Path, needed: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"no room for {path}: {needed:,} bytes needed, {_free(path):,} free ({error.strerror}). "
                "Free space there, or keep fewer checkpoints"
            ) from error
        kind = Forbidden if error.errno in _DENIED else StoreError
        raise kind(f"{path}: {error.strerror}. Is the folder there, and may this user write to it?") from error


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
