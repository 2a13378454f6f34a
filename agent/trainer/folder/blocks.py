"""Blocks: what the file system can do for a copy: share blocks, leave holes out, keep a file without a name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from agent.trainer.folder.scan import FolderError

_FICLONE = 0x40049409
_HOLE = 1 << 20  # a shorter one is stored as the zeros that it reads as
_COPY = 16 << 20


def clone(source: int, into: int) -> bool:
    """Make `into` a file of the same blocks as `source`. False where this file system can't."""
    try:
        fcntl.ioctl(into, _FICLONE, source)
    except OSError:
        return False
    return True


def data_of(fd: int, size: int) -> list[tuple[int, int]]:
    """Where a file has content, as (from, how much); holes worth the trouble are left out."""
    if os.fstat(fd).st_blocks * 512 >= size - _HOLE:
        return [(0, size)] if size else []
    found: list[tuple[int, int]] = []
    at = 0
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole from here on
        while at < size:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = min(size, os.lseek(fd, begin, os.SEEK_HOLE))
            if found and begin - sum(found[-1]) < _HOLE:
                begin = found.pop()[0]
            found.append((begin, at - begin))
    return found


def nameless(folder: str) -> int:
    """A new file without a name there: it goes with its descriptor, whatever becomes of us."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    fd, name = tempfile.mkstemp(prefix=".spot-", dir=folder)
    os.unlink(name)
    return fd


def copy(source: int, into: int, path: str, size: int) -> None:
    done = 0
    with _no_room(path, size):
        while done < size and (content := os.pread(source, min(_COPY, size - done), done)):
            os.pwrite(into, content, done)
            done += len(content)


def write(fd: int, content: list[bytes], what: str) -> None:
    data = memoryview(b"".join(content))
    with _no_room(what, len(data)):
        while data:
            data = data[os.write(fd, data) :]


@contextmanager
def _no_room(what: str, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FolderError(
            f"the disk of {what} has no room for the {size:,} bytes of it that are copied until they are saved: free "
            "space there, or let the program write to a new file each time"
        ) from error


def more_files(wanted: int) -> int:
    """How many descriptors this process may have, after it asked for `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft
