"""Results: the finished model in the bucket, and the mark that the run is complete.

Large files go up in parts, many at a time, and are joined there. A part that the final checkpoint has already is not
sent again, and a try after a failure goes on where that one stopped. No part is copied into memory on its way.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from crc32c import crc32c

from agent.checkpoint.line import Line
from agent.checkpoint.lines import LinesObject
from agent.checkpoint.listing import Extent, read_listing
from agent.checkpoint.manifest import MANIFEST, ManifestError, Part, parse_manifest
from agent.store import COMPOSED_AT_ONCE, Corrupt, NotFound, Store, StoredObject, StoreError
from agent.store.crc import combine
from agent.store.names import RESULT_PARTS, RESULTS
from agent.telemetry.ledger import utc_now

log = structlog.get_logger()
T = TypeVar("T")
U = TypeVar("U")

PART = 32 << 20
_CONNECTIONS = 16  # the trainer is done: no core is kept for it
_TOLD_EVERY_S = 10.0


def is_complete(line: Line, *, timeout: float) -> bool:
    """Whether the run has finished, on this VM or another."""
    newest = line.newest(timeout=timeout)
    return newest is not None and newest.kind == "done"


def mark_complete(
    store: Store, line: Line, *, attempt: int, claimant: str, result: dict[str, Any], lines: LinesObject, timeout: float
) -> None:
    """Mark the run complete, `lines` with it. Raises StoreError, and Superseded where another VM trains this run."""
    if lines.name:
        store.create(lines.name, lines.body, timeout=timeout)
    result = result | {"attempt": attempt, "finished": utc_now()}
    line.finish(attempt=attempt, claimant=claimant, result=result, lines=lines.name, timeout=timeout)


def store_result(
    store: Store, line: Line, folder: Path, *, attempt: int, claimant: str, step: int, lines: LinesObject,
    timeout: float,
) -> str:  # fmt: skip
    """Upload every file under `folder`, then mark the run complete. Returns the result's name in the bucket.

    Raises:
        StoreError: a file could not be stored; the run is not marked complete. Asked again, it goes on.
        Superseded: another VM trains this run.
    """
    deadline = time.monotonic() + timeout
    prefix = f"{RESULTS}{attempt:05d}"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise StoreError(f"{folder} holds no file: the trainer saved no result")
    upload = _Upload(store, deadline)
    kept = _kept(store, line, timeout=upload.left())
    try:
        upload.run([_cut(path, folder, prefix, kept) for path in paths])
    except NotFound:  # a part of the checkpoint's may have been retired
        if not kept.files:
            raise
        upload = _Upload(store, deadline)
        upload.run([_cut(path, folder, prefix, _Kept()) for path in paths])
    done = {"step": step, "result": prefix, "files": len(paths)}
    mark_complete(store, line, attempt=attempt, claimant=claimant, result=done, lines=lines, timeout=upload.left())
    _clear(store, timeout=upload.left())
    return f"{store.url}/{prefix}"


@dataclass(frozen=True)
class _Piece:
    """Bytes [start, start + size) of a file; `kept`: the part of the checkpoint that they are, if nothing changed."""

    path: Path
    start: int
    size: int
    kept: Part | None = None
    crc32c: int = 0

    @property
    def source(self) -> str:
        """The object that is this piece already; empty where there is none."""
        same = self.kept is not None and self.kept.crc32c == self.crc32c
        return self.kept.name if self.kept and same else ""


@dataclass(frozen=True)
class _File:
    """One file, in pieces; `name` is its object's."""

    name: str
    pieces: list[_Piece]

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    @property
    def crc32c(self) -> int:
        return combine((piece.crc32c, piece.size) for piece in self.pieces)

    @property
    def whole(self) -> bool:
        """Whether it is sent as it is, without being joined."""
        return len(self.pieces) == 1 and not self.pieces[0].source

    def part_name(self, piece: _Piece) -> str:
        """By its content: a try that follows finds what this one has sent."""
        file = self.name.removeprefix(RESULTS).partition("/")[2]
        return f"{RESULT_PARTS}{file}/{piece.start:012x}-{piece.size:08x}-{piece.crc32c:08x}"


@dataclass(frozen=True)
class _Kept:
    """What the final checkpoint has of a folder: where each file is in its bytes, and the parts of those."""

    files: Mapping[str, Sequence[Extent]] = field(default_factory=dict)
    parts: Sequence[Part] = ()


def _kept(store: Store, line: Line, *, timeout: float) -> _Kept:
    newest = line.newest(timeout=timeout)
    if newest is None or not newest.checkpoints:
        return _Kept()
    name = f"{newest.checkpoints[0]}/{MANIFEST}"
    try:
        manifest = parse_manifest(store.read(name, timeout=timeout), where=name)
        files = read_listing(store, manifest, timeout=timeout).extents if manifest.layout == "folder" else {}
    except (ManifestError, NotFound, Corrupt):
        return _Kept()
    return _Kept(files, sorted(manifest.ranks[0].parts, key=lambda part: part.offset))


def _cut(path: Path, folder: Path, prefix: str, kept: _Kept) -> _File:
    """Where the checkpoint's parts begin and end, as far as it has the file; else in parts of one size."""
    size, file = path.stat().st_size, path.relative_to(folder).as_posix()
    pieces: list[_Piece] = []
    for extent in kept.files.get(file, ()):
        begin = max(0, bisect_right(kept.parts, extent.at, key=_offset) - 1)
        for part in kept.parts[begin : bisect_left(kept.parts, extent.at + extent.size, key=_offset)]:
            first, last = max(extent.at, part.offset), min(extent.at + extent.size, part.offset + part.size)
            start, end = extent.start + first - extent.at, min(size, extent.start + last - extent.at)
            if start < end:
                pieces.append(_Piece(path, start, end - start, part if end - start == part.size else None))
    if not any(piece.kept for piece in pieces) or sum(piece.size for piece in pieces) != size:
        pieces = [_Piece(path, start, min(PART, size - start)) for start in range(0, size, PART)]
    return _File(f"{prefix}/{_as_object(file)}", pieces or [_Piece(path, 0, 0)])


def _offset(part: Part) -> int:
    return part.offset


def _as_object(file: str) -> str:
    """As the bucket can name it: bytes that are no UTF-8 as backslash and number, line ends too."""
    name = os.fsencode(file).decode("utf-8", "backslashreplace")
    return name.replace("\n", "\\x0a").replace("\r", "\\x0d")


class _Upload:
    """One try: what is in the bucket already is not sent."""

    def __init__(self, store: Store, deadline: float) -> None:
        self._store, self._deadline = store, deadline
        self._lock = threading.Lock()
        self._there: dict[str, StoredObject] = {}
        self._size = self._sent = self._copied = self._found = 0
        self._told = time.monotonic()

    def left(self) -> float:
        return max(0.001, self._deadline - time.monotonic())

    def run(self, files: list[_File]) -> None:
        for prefix in (f"{files[0].name.partition('/')[0]}/{files[0].name.split('/')[1]}/", RESULT_PARTS):
            self._there |= {each.name: each for each in self._store.list(prefix, timeout=self.left())}
        read = _all(_checksum, [piece for file in files for piece in file.pieces])
        known = iter(read)
        files = [replace(file, pieces=[next(known) for _ in file.pieces]) for file in files]
        self._size = sum(file.size for file in files)
        missing = [file for file in files if not self._has(file.name, file.size, file.crc32c)]
        self._found = self._size - sum(file.size for file in missing)
        _all(self._send, [(file, piece) for file in missing for piece in file.pieces])
        _all(self._join, [file for file in missing if not file.whole])

    def _has(self, name: str, size: int, crc: int) -> bool:
        there = self._there.get(name)
        return there is not None and (there.size, there.crc32c) == (size, crc)

    def _send(self, what: tuple[_File, _Piece]) -> None:
        file, piece = what
        name = file.name if file.whole else file.part_name(piece)
        if piece.source:
            self._count(copied=piece.size)
        elif self._has(name, piece.size, piece.crc32c):
            self._count(found=piece.size)
        else:
            _with_bytes(piece, lambda data: self._store.create(name, data, timeout=self.left()))
            self._count(sent=piece.size)

    def _join(self, file: _File) -> None:
        """Some at a time, and what comes of that again, until they are one."""
        parts = [(piece.source or file.part_name(piece), piece.size, piece.crc32c) for piece in file.pieces]
        level = 0
        while True:
            joined = []
            groups = [parts[at : at + COMPOSED_AT_ONCE] for at in range(0, len(parts), COMPOSED_AT_ONCE)]
            for number, group in enumerate(groups):
                size, crc = sum(size for _, size, _ in group), combine((crc, size) for _, size, crc in group)
                name = file.part_name(_Piece(Path(), number, size, crc32c=crc)) + f"-{level}"
                name = file.name if len(groups) == 1 else name
                if not self._has(name, size, crc):
                    sources = [source for source, _, _ in group]
                    self._store.compose(name, sources, size=size, crc32c=crc, timeout=self.left())
                joined.append((name, size, crc))
            if len(joined) == 1:
                return
            parts, level = joined, level + 1

    def _count(self, *, sent: int = 0, copied: int = 0, found: int = 0) -> None:
        with self._lock:
            self._sent, self._copied, self._found = self._sent + sent, self._copied + copied, self._found + found
            done = self._sent + self._copied + self._found
            now = time.monotonic()
            if done < self._size and now - self._told < _TOLD_EVERY_S:
                return
            self._told = now
        log.info("result_progress", done=done, size=self._size, sent=self._sent, copied=self._copied, found=self._found)


def _all(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Do `work` for all, some at a time; the first failure ends it."""
    with ThreadPoolExecutor(_CONNECTIONS, "result") as pool:
        tasks = [pool.submit(work, item) for item in items]
        done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
        for task in done:
            task.result()
        return [task.result() for task in tasks]


def _checksum(piece: _Piece) -> _Piece:
    return replace(piece, crc32c=_with_bytes(piece, crc32c))


def _with_bytes(piece: _Piece, use: Callable[[memoryview | bytes], T]) -> T:
    """Call `use` with the piece's bytes, as they lie in the file."""
    if not piece.size:
        return use(b"")
    problem: StoreError | None = None
    with _mapped(piece) as data:
        try:
            return use(data)
        except StoreError as error:  # its frames hold views of the map, which could not be closed then
            error.__cause__ = error.__context__ = None
            problem = error.with_traceback(None)
    raise problem


@contextmanager
def _mapped(piece: _Piece) -> Iterator[memoryview]:
    with (
        piece.path.open("rb") as source,
        mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        memoryview(whole) as view,
        view[piece.start : piece.start + piece.size] as data,
    ):
        yield data


def _clear(store: Store, *, timeout: float) -> None:
    """The parts have done their work. The run is complete: what can't be deleted is told, no more."""
    try:
        left = store.list(RESULT_PARTS, timeout=timeout)
        stayed: dict[str, StoreError] = store.delete_many([each.name for each in left], timeout=timeout)
        why = next(iter(stayed.values()), None)
    except StoreError as error:
        why = error
    if why:
        log.warning("result_parts_left", prefix=f"{store.url}/{RESULT_PARTS}", why=str(why))
