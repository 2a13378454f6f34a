"""Put back: a committed folder, as it was: from the bucket straight to the disk, aside first and then renamed.

Several parts are on their way at a time, each verified before any of it is written. What was in the folder before is
replaced where it is what the bucket has; else it is put aside under a name that says when, the newest two.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from agent.checkpoint.listing import TOP, UNKNOWN, FolderEntry, Listing, read_listing
from agent.checkpoint.manifest import Manifest, Part
from agent.checkpoint.stored import Stored
from agent.store import Corrupt, Store
from agent.trainer.folder.loose import is_loose
from agent.trainer.folder.place import Place
from agent.trainer.folder.scan import FolderError, scan_folder

T = TypeVar("T")

_PART_TIMEOUT_S = 120.0
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_ZEROS = bytes(64 << 10)
_FEW = 8  # files of one part; more are written by one thread at a time, for each call is short and they share the GIL


class _Slice(NamedTuple):
    """Bytes [at, at + size) of the checkpoint go into a file from `start` on."""

    at: int
    size: int
    start: int
    entry: FolderEntry


def put_back(
    store: Store, manifest: Manifest, folder: Path, *, news: bool, connections: int, timeout: float
) -> tuple[list[FolderEntry], Stored]:
    """Make `folder` what the checkpoint says. `news`: it holds what the bucket lacks. Returns what is there now, and
    what of that the bucket has.

    Raises:
        FolderError: the disk has no room, or refuses; or the checkpoint names a path outside the folder.
        ManifestError, Corrupt, NotFound: the checkpoint is not what its manifest says.
    """
    deadline = time.monotonic() + timeout
    listing = read_listing(store, manifest, timeout=timeout)
    place = Place(folder)
    with _explained(folder, "the checkpoint can't be put back into"):
        place.clear()
        _check_room(place, listing)
        aside = place.aside
        _make(aside, listing)
        cut = _fill(store, manifest, listing, aside, connections=connections, deadline=deadline)
        _finish(aside, listing, cut)
        if not place.disk:
            _finish_folders(aside, listing)
        place.exchange(news=news)
        if place.disk:
            _finish_folders(place.top, listing)
        found = scan_folder(folder, is_loose)
        return found, Stored.of(found, listing.extents, manifest.ranks[0].parts)


def _check_room(place: Place, listing: Listing) -> None:
    disk = os.statvfs(place.aside)
    need, free = sum(each.size for found in listing.extents.values() for each in found), disk.f_bavail * disk.f_frsize
    if need > free:
        raise FolderError(
            f"the checkpoint needs {need:,} bytes, and the disk of {place.top} has {free:,} left beside what that "
            f"folder holds now: free {need - free:,} bytes there, or take a larger disk"
        )
    if disk.f_files and len(listing.entries) > disk.f_favail:
        raise FolderError(
            f"the checkpoint has {len(listing.entries):,} files, and the disk of {place.top} has room for "
            f"{disk.f_favail:,} more, whatever their size"
        )


def _make(aside: Path, listing: Listing) -> None:
    """Folders, and those files that no part of the checkpoint is in."""
    top = str(aside)
    for entry in listing.entries:
        if entry.path == TOP:
            continue
        parts = entry.path.split("/")
        if os.path.isabs(entry.path) or "" in parts or ".." in parts or "\0" in entry.path:
            raise FolderError(f"the checkpoint names a file outside its folder: {entry.path!r}")
        path = f"{top}/{entry.path}"
        if entry.kind == "folder":
            os.makedirs(path, exist_ok=True)
        elif entry.kind == "file" and not listing.extents.get(entry.path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.truncate(fd, entry.size)
            _dress(fd, entry)
            os.close(fd)


def _fill(
    store: Store, manifest: Manifest, listing: Listing, aside: Path, *, connections: int, deadline: float
) -> set[str]:
    """Write the parts into their files. Returns the paths of those files that lie in several: none of these is as it is
    to be yet, but for its bytes."""
    slices = sorted(
        (
            _Slice(extent.at, extent.size, extent.start, entry)
            for entry in listing.entries if entry.kind == "file"
            for extent in listing.extents.get(entry.path, ())
        ),
        key=lambda each: each.at,
    )  # fmt: skip
    end = manifest.ranks[0].size
    if late := next((each for each in slices if each.at + each.size > end), None):
        raise FolderError(f"the checkpoint is too short for {late.entry.path!r}")
    starts = [each.at for each in slices]
    own = threading.local()
    cut: set[str] = set()
    one_at_a_time = threading.Lock()

    def fetch(part: Part) -> None:
        wanted = slices[
            max(0, bisect_right(starts, part.offset) - 1) : bisect_right(starts, part.offset + part.size - 1)
        ]
        wanted = [each for each in wanted if each.at + each.size > part.offset]
        if not wanted:
            return
        buffer = getattr(own, "buffer", None)
        if buffer is None or len(buffer) < part.size:
            buffer = own.buffer = mmap.mmap(-1, -(-part.size // mmap.PAGESIZE) * mmap.PAGESIZE, flags=_PRIVATE)
        with memoryview(buffer) as room, room[: part.size] as content:
            left = max(0.001, deadline - time.monotonic())
            crc = store.read_into(part.name, content, timeout=min(left, _PART_TIMEOUT_S))
            if crc != part.crc32c:
                raise Corrupt(f"{part.name}: crc32c is {crc:08x}, the manifest says {part.crc32c:08x}")
            with one_at_a_time if len(wanted) > _FEW else contextlib.nullcontext():
                write(wanted, part, content)

    def write(wanted: Sequence[_Slice], part: Part, content: memoryview) -> None:
        for each in wanted:
            first, last = max(each.at, part.offset), min(each.at + each.size, part.offset + part.size)
            whole = last - first == each.entry.size
            if not whole:
                cut.add(each.entry.path)
            with content[first - part.offset : last - part.offset] as data:
                _write(f"{aside}/{each.entry.path}", each.entry, data, each.start + first - each.at, dress=whole)

    _all(fetch, manifest.ranks[0].parts, connections)
    return cut


def _write(path: str, entry: FolderEntry, data: memoryview, start: int, *, dress: bool) -> None:
    """Bytes that are zero are left out: there the file is empty."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, flags, 0o600)
    try:
        if not dress:
            os.truncate(fd, entry.size)
        for at, piece in _pieces(data):
            os.pwrite(fd, piece, start + at)
        if dress:
            _dress(fd, entry)
    finally:
        os.close(fd)


def _pieces(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """All of it but long runs of zeros, one after the other."""
    step = len(_ZEROS)
    if len(data) <= step:
        yield 0, data
        return
    begin = 0
    for at in range(0, len(data), step):
        block = data[at : at + step]
        if not block[0] and not block[-1] and len(block) == step and bytes(block) == _ZEROS and at + step < len(data):
            if begin < at:
                yield begin, data[begin:at]
            begin = at + step
    yield begin, data[begin:]


def _finish(aside: Path, listing: Listing, cut: Collection[str]) -> None:
    """Links, further names, and owner, mode and times of files that were `cut`."""
    top = str(aside)
    for entry in listing.entries:
        path = f"{top}/{entry.path}"
        match entry.kind:
            case "link":
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.symlink(entry.target, path)
                _own(path, entry)
                if entry.mtime_ns != UNKNOWN:
                    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
            case "hard":
                os.link(f"{top}/{entry.target}", path)
            case "file" if entry.path in cut:
                _dress(path, entry)
    real = os.path.realpath(top)
    for entry in listing.entries:
        if entry.kind == "link":
            leads_to = os.path.realpath(f"{real}/{entry.path}")
            if leads_to != real and not leads_to.startswith(f"{real}/"):
                raise FolderError(f"the checkpoint has a link that leads outside its folder: {entry.path!r}")


def _finish_folders(top: Path, listing: Listing) -> None:
    """From the deepest on: what is made in a folder changes its time."""
    for entry in reversed(listing.entries):
        if entry.kind == "folder" and not (entry.path == TOP and top.is_mount()):
            _dress(f"{top}/{entry.path}", entry)


def _dress(what: int | str, entry: FolderEntry) -> None:
    """Owner, mode and times."""
    _own(what, entry)
    os.chmod(what, entry.mode)
    if entry.mtime_ns != UNKNOWN:
        os.utime(what, ns=(entry.mtime_ns, entry.mtime_ns))


def _own(what: int | str, entry: FolderEntry) -> None:
    if os.geteuid() == 0 and entry.uid >= 0:
        with contextlib.suppress(PermissionError):  # a root without the right to, as in some containers
            os.chown(what, entry.uid, entry.gid, **({} if isinstance(what, int) else {"follow_symlinks": False}))


def _all(work: Callable[[T], None], items: Sequence[T], connections: int) -> None:
    """Do `work` for all, some at a time; the first failure ends it."""
    with ThreadPoolExecutor(connections, "put-back") as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            disk = os.statvfs(folder if folder.exists() else folder.parent)
            raise FolderError(
                f"{what} {folder}: its disk is full ({disk.f_bavail * disk.f_frsize:,} bytes left): free space there, "
                "or take a larger disk"
            ) from error
        raise FolderError(f"{what} {folder}: {error}") from error
