"""Aside: a folder as it stands at one moment, held until it is in the bucket.

Large files are held by an open descriptor: they outlive a program that deletes or replaces them, take neither memory
nor room on the disk, and leave nothing behind. Where the file system can make a second file of the same blocks
(FICLONE: XFS, Btrfs), that is held instead. Else a program that writes to a file in place is found out, for size or
times are others then (`Torn`), and the next try copies that file aside first. Small files are copied at once, many into
one part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.checkpoint.drain import part_size_for
from agent.checkpoint.listing import Extent, FolderEntry, Listing
from agent.checkpoint.source import Piece, cut
from agent.checkpoint.stored import Stored, lay_out
from agent.trainer.folder.blocks import clone, copy, data_of, more_files, nameless, write
from agent.trainer.folder.scan import FolderError
from agent.trainer.folder.snapshot import Run, Snapshot, content_of

SMALL = 1 << 20
"""Below it files share a part."""
_PACK = 8 << 20
_IN_MEMORY = 128 << 20  # of small files; more lie on the folder's own disk meanwhile
_SPARE_FILES = 256  # descriptors that the agent needs for all else
_TICK_S = 0.02  # a second write within a tick of the kernel's clock may leave a file's times as they are


def take(
    folder: Path,
    entries: Sequence[FolderEntry],
    stored: Stored,
    *,
    connections: int,
    copied: Collection[str] = (),
) -> Snapshot:
    """Hold the folder as `entries` say that it is. What `stored` has is referred to, not held. `copied`: paths, whole,
    of files that are written to in place: what is held of them is a copy.

    Raises:
        FolderError: a file is another by now, or the disk has no room for the copy of one.
    """
    top = os.path.realpath(folder)
    snapshot = Snapshot()
    try:
        _wait_for_the_tick(entries)
        entries = _with_first_names(entries)
        same = stored.of_same(entries)
        snapshot.pieces, snapshot.extents, snapshot.size = lay_out(same)
        small: list[FolderEntry] = []
        large: list[FolderEntry] = []
        for entry in entries:
            if entry.kind == "file" and entry.path not in same:
                (small if entry.size < SMALL else large).append(entry)
        part_size = part_size_for(sum(entry.size for entry in large), connections)
        holder = _Holder(snapshot, top, len(large), copied)
        held = {entry.path: holder.hold(entry, part_size) for entry in large}
        packs = _packs_file(top, sum(entry.size for entry in small))
        held |= _pack(snapshot, top, small, snapshot.hold(packs))
        snapshot.entries = [held.get(entry.path, entry) for entry in entries]
        _add_listing(snapshot, packs)
    except BaseException:
        snapshot.close()
        raise
    return snapshot


def _with_first_names(entries: Sequence[FolderEntry]) -> list[FolderEntry]:
    """Of a file's several names the first may not be among those that are held: then the next one is the first."""
    first: dict[tuple[int, int], str] = {}
    named = []
    for entry in entries:
        if entry.kind in ("file", "hard"):
            name = first.setdefault(entry.inode, entry.path)
            one = name == entry.path
            named.append(entry._replace(kind="file" if one else "hard", target="" if one else name))
        else:
            named.append(entry)
    return named


def _wait_for_the_tick(entries: Sequence[FolderEntry]) -> None:
    newest = max((entry.mtime_ns for entry in entries if entry.kind == "file"), default=0) / 1e9
    if 0 <= time.time() - newest < _TICK_S:
        time.sleep(_TICK_S)


class _Holder:
    """Opens large files, or makes what is read instead of them."""

    def __init__(self, snapshot: Snapshot, top: str, number: int, copied: Collection[str]) -> None:
        self._snapshot, self._top, self._copied = snapshot, top, copied
        self._open = number <= more_files(number + _SPARE_FILES) - _SPARE_FILES
        self._clones = True

    def hold(self, entry: FolderEntry, part_size: int) -> FolderEntry:
        path = f"{self._top}/{entry.path}"
        with _source(path, entry) as source:
            aside = self._aside(source, path, entry)
            own = aside is not None
            fd = aside if aside is not None else os.dup(source)
            try:
                entry = _checked(source, path, entry, got=os.fstat(fd).st_size if own else None)
            except BaseException:
                os.close(fd)
                raise
            extents = data_of(fd, entry.size)
            unchanged = content_of(os.fstat(source))
        if own or self._open:
            self._snapshot.hold(fd)
        else:
            os.close(fd)
            fd = -1
        listed = self._snapshot.extents[entry.path] = []
        for start, size in extents:
            at = self._snapshot.size
            listed.append(Extent(at, size, start))
            self._snapshot.pieces += [Piece(at + each.offset, each.size) for each in cut(size, part_size)]
            self._snapshot.add(Run(at, size, fd, start, path, None if own else unchanged))
        return entry

    def _aside(self, source: int, path: str, entry: FolderEntry) -> int | None:
        """A file of the same content that nobody else has; None where that would cost a copy, and none is needed."""
        must = entry.loose or path in self._copied
        if not (must or (self._clones and self._open)):
            return None
        into = nameless(self._top)
        try:
            if self._clones and clone(source, into):
                return into
            self._clones = False  # that is not a matter of this file
            if must:
                copy(source, into, path, entry.size)
                return into
        except BaseException:
            os.close(into)
            raise
        os.close(into)
        return None


def _pack(snapshot: Snapshot, top: str, small: list[FolderEntry], packs: int) -> dict[str, FolderEntry]:
    """Copy them one behind the other; what each is now."""
    held: dict[str, FolderEntry] = {}
    pack: list[bytes] = []
    begin = size = 0

    def end() -> None:
        nonlocal begin, size
        write(packs, pack, top)
        if size:
            snapshot.pieces.append(Piece(snapshot.size, size))
            snapshot.add(Run(snapshot.size, size, packs, begin, top, None))
        begin, size = begin + size, 0
        pack.clear()

    for entry in small:
        path = f"{top}/{entry.path}"
        content = b""
        if entry.size:
            with _source(path, entry) as source:
                content = os.pread(source, entry.size, 0)
                held[entry.path] = _checked(source, path, entry, got=len(content))
        if size + len(content) > _PACK:
            end()
        snapshot.extents[entry.path] = [Extent(snapshot.size + size, len(content), 0)] if content else []
        pack.append(content)
        size += len(content)
    end()
    return held


def _add_listing(snapshot: Snapshot, packs: int) -> None:
    extents = {path: each for path, each in snapshot.extents.items() if each}
    packed = Listing(snapshot.entries, extents).pack()
    at, begin = snapshot.size, os.lseek(packs, 0, os.SEEK_CUR)
    write(packs, [packed], "the list of files")
    snapshot.listing = (at, len(packed))
    snapshot.pieces += [Piece(at + each.offset, each.size) for each in cut(len(packed), _PACK)]
    snapshot.add(Run(at, len(packed), packs, begin, "", None))


@contextmanager
def _source(path: str, entry: FolderEntry) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FolderError(f"{path} is gone since it was found; the next save tries again") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _checked(source: int, path: str, entry: FolderEntry, *, got: int | None) -> FolderEntry:
    """The entry as it was taken: a loose one as long as what was `got` of it. Raises FolderError where another was."""
    if entry.loose and got is not None:
        return entry._replace(size=got)
    info = os.fstat(source)
    identity = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, (info.st_dev, info.st_ino))
    if identity != entry.identity or (got is not None and got != entry.size):
        raise FolderError(f"{path} changed since it was found; the next save tries again")
    return entry


def _packs_file(top: str, size: int) -> int:
    return os.memfd_create("spot-packs", os.MFD_CLOEXEC) if size <= _IN_MEMORY else nameless(top)
