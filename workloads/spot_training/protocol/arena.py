"""Arenas: shared memory that a snapshot is staged in, and that outlives the trainer that filled it.

An arena is a memfd. It has no name, so nothing is left behind when both processes die, and it does not count
against /dev/shm (which is 64 MB in a default container). Its pages are reserved and touched *before* the first
save: the first touch of memory is 3 to 20 times slower than a copy into memory that is already there.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_MADV_POPULATE_WRITE = 23  # Linux 5.14; older kernels answer EINVAL and the first save pays for the page faults
_PREFAULT_STEP = 64 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class ArenaError(Exception):
    """There is not enough memory for an arena."""


class Arena:
    """`size` bytes of shared memory behind the descriptor `fd`."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.map = mmap.mmap(fd, size)
        with contextlib.suppress(OSError):  # where shmem_enabled is `advise`, fewer page faults
            self.map.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self.map)

    @classmethod
    def create(cls, size: int, *, reserve: int | None = None) -> Arena:
        """A new arena of `size` bytes; checks that `reserve` (default `size`) bytes are really free first.

        Raises:
            ArenaError: the machine or the container has not that much memory left, or shared memory is refused.
        """
        need, free = (size if reserve is None else reserve), available_memory()
        if need > free:
            raise ArenaError(
                f"an arena of {size / 1e9:.2f} GB needs {need / 1e9:.2f} GB of free memory, {free / 1e9:.2f} GB is "
                "left on this machine or in this container: use a machine with more memory, or a smaller model or batch"
            )
        try:
            fd = os.memfd_create("spot-arena", os.MFD_CLOEXEC)
            try:
                os.ftruncate(fd, size)
                return cls(fd, size)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise ArenaError(f"no shared memory of {size / 1e9:.2f} GB: {error}") from error

    @classmethod
    def adopt(cls, fd: int) -> Arena:
        """The arena behind a descriptor that came from the other process."""
        return cls(fd, os.fstat(fd).st_size)

    def prefault(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Touch every page, until `hurry` says that there is no time. Releases the GIL; 0.5 to 2 s a GB on a VM."""
        anchor = ctypes.c_char.from_buffer(self.map)
        try:
            base = ctypes.addressof(anchor)
            for start in range(0, self.size, _PREFAULT_STEP):
                if hurry():
                    return
                length = min(_PREFAULT_STEP, self.size - start)
                if _libc.madvise(ctypes.c_void_p(base + start), ctypes.c_size_t(length), _MADV_POPULATE_WRITE):
                    return
        finally:
            del anchor

    @contextlib.contextmanager
    def read(self, offset: int, size: int) -> Iterator[memoryview]:
        """Bytes [offset, offset + size), in place."""
        with self.view[offset : offset + size] as data:
            yield data

    def close(self) -> None:
        """Forget the mapping and the descriptor; the memory lives on while the other process holds it."""
        with contextlib.suppress(BufferError):  # a view is still in use: the map goes when that view does
            self.view.release()
            self.map.close()
        with contextlib.suppress(OSError):
            os.close(self.fd)
        self.fd = -1


def available_memory() -> int:
    """Bytes that can still be taken: the smaller of MemAvailable and what the cgroups leave."""
    meminfo = Path("/proc/meminfo").read_text()
    free = next(int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.startswith("MemAvailable"))
    return min([free, *_cgroup_headroom()])


def _cgroup_headroom() -> Iterator[int]:
    """What each cgroup (v2) from ours up to the root still allows."""
    with contextlib.suppress(OSError):
        path = next(
            line.split("::", 1)[1].strip()
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
        for folder in [Path(path), *Path(path).parents]:
            group = Path("/sys/fs/cgroup") / folder.relative_to("/")
            with contextlib.suppress(OSError, ValueError):
                limit = int((group / "memory.max").read_text())  # "max" is a ValueError: no limit here
                yield max(0, limit - int((group / "memory.current").read_text()))
