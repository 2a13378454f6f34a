"""Drain: pieces of a staged snapshot go from its source to the bucket, in parallel, as they arrive.

The uploader's threads belong to the agent, so the trainer's GIL, crash, hang or kill can't hurt an upload under
way. While training goes on few connections are used (each costs the trainer a share of a core); a drain that is
urgent gets all of them and goes first.
"""

from __future__ import annotations

import heapq
import itertools
import mmap
import random
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from agent.checkpoint.manifest import Part
from agent.checkpoint.source import Piece, Source, cut
from agent.store import AlreadyExists, Corrupt, Store, StoreError, Unavailable

MIN_PART = 8 << 20
MAX_PART = 32 << 20
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_ATTEMPT_TIMEOUT_S = 60.0  # one try of one part; the drain's own deadline bounds them all


class Abandoned(Exception):
    """The drain was given up before it was whole."""


def part_size_for(size: int, connections: int) -> int:
    """Part size in bytes: every connection gets the same share, in parts not too small or large to retry cheaply."""
    rounds = max(1, -(-size // (connections * MAX_PART)))
    share = -(-size // (connections * rounds))
    return max(MIN_PART, -(-share // mmap.PAGESIZE) * mmap.PAGESIZE)


@dataclass(eq=False)
class Drain:
    """One snapshot on its way. `done` resolves to its parts once every byte is in the bucket and verified.

    Times are `time.monotonic()` seconds; `deadline` is when it is given up for good. `folders`: where its parts lie,
    the last one is the checkpoint's.
    """

    source: Source
    step: int
    folders: list[str]
    pieces: Sequence[Piece]
    deadline: float
    urgent: bool = False
    watermark: int = 0
    queued: int = 0
    """How many of the pieces are on their way, or through."""
    begun: float = field(default_factory=time.monotonic)
    last_byte: float = 0.0
    parts: dict[int, Part] = field(default_factory=dict)
    """By the number of their piece."""
    tries: dict[int, int] = field(default_factory=dict)
    renamed: dict[int, str] = field(default_factory=dict)
    done: Future[list[Part]] = field(default_factory=Future)

    @property
    def folder(self) -> str:
        return self.folders[-1]

    @property
    def size(self) -> int:
        """Bytes of the checkpoint."""
        return self.pieces[-1].offset + self.pieces[-1].size

    @property
    def sent(self) -> int:
        """Bytes of it that were not in the bucket before."""
        return sum(piece.size for piece in self.pieces if not piece.kept)


class Uploader:
    """Threads that upload parts. All methods may be called from any thread."""

    def __init__(self, store: Store, *, connections: int = 16, background: int = 4) -> None:
        self.store = store
        self.connections = connections
        self.background = background
        self._tasks: list[tuple[bool, int, Drain, int]] = []  # (not urgent, sequence, drain, number of its piece)
        self._sequence = itertools.count()
        self._active = 0
        self._urgent = 0
        self._ready = threading.Condition()
        self._closing = False
        self._threads: list[threading.Thread] = []

    def begin(
        self, source: Source, *, step: int, folder: str, size: int, deadline: float, urgent: bool,
        pieces: Sequence[Piece] = (),
    ) -> Drain:  # fmt: skip
        """A new drain of the first `size` bytes of `source`, in `pieces` or such of one size; nothing is uploaded until
        `advance`."""
        pieces = pieces or cut(size, part_size_for(size, self.connections))
        drain = Drain(source, step, [folder], pieces, deadline, urgent)
        with self._ready:
            while len(self._threads) < self.connections:
                thread = threading.Thread(target=self._work, name=f"upload-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._begin(drain)
        return drain

    def _begin(self, drain: Drain) -> None:
        with self._ready:
            self._urgent += drain.urgent
        drain.done.add_done_callback(lambda _: self._ended(drain))

    def again(self, drain: Drain, *, deadline: float, urgent: bool) -> None:
        """Go on with a drain that has ended, as far as it has not come: what is in the bucket stays as it is."""
        with self._ready:
            self._tasks = [task for task in self._tasks if task[2] is not drain]
            heapq.heapify(self._tasks)
            drain.deadline, drain.urgent = deadline, urgent
            drain.done = Future()
            drain.tries.clear()
            self._begin(drain)
            for number in range(drain.queued):
                if number not in drain.parts:
                    self._put(drain, number)
            self._queue(drain)
            self._see_whole(drain)

    def advance(self, drain: Drain, watermark: int) -> None:
        """Bytes below `watermark` are final: an urgent drain begins with them, any other once all of them are."""
        with self._ready:
            drain.watermark = max(drain.watermark, watermark)
            self._queue(drain)

    def urge(self, drain: Drain, *, deadline: float) -> None:
        """The window has opened: this drain goes first, with every connection, and ends at `deadline`."""
        with self._ready:
            drain.deadline = min(drain.deadline, deadline)
            if not drain.urgent and not drain.done.done():
                drain.urgent = True
                self._urgent += 1
                self._tasks = [(task[2] is not drain and task[0], *task[1:]) for task in self._tasks]
                heapq.heapify(self._tasks)
            self._queue(drain)

    def abandon(self, drain: Drain, why: str) -> None:
        """Give a drain up; parts that are in the bucket already stay until retention finds them."""
        self._fail(drain, Abandoned(why))

    def close(self) -> None:
        """Stop the threads once their current part is through."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()

    def _queue(self, drain: Drain) -> None:
        """Queue the parts that may be sent now. Training waits for the copy, not for the upload: where there is time,
        the copy has the cores to itself."""
        final = drain.watermark if drain.urgent or drain.watermark == drain.size else 0
        while drain.queued < len(drain.pieces):
            piece = drain.pieces[drain.queued]
            if piece.offset + piece.size > final:
                break
            if piece.kept:
                drain.parts[drain.queued] = piece.kept.model_copy(update={"offset": piece.offset})
            else:
                self._put(drain, drain.queued)
            drain.queued += 1
        self._see_whole(drain)
        self._ready.notify_all()

    def _put(self, drain: Drain, number: int) -> None:
        heapq.heappush(self._tasks, (not drain.urgent, next(self._sequence), drain, number))

    def _ended(self, drain: Drain) -> None:
        with self._ready:
            self._urgent -= drain.urgent
            self._ready.notify_all()

    def _limit(self) -> int:
        return self.connections if self._urgent else self.background

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._closing and not (self._tasks and self._active < self._limit()):
                    self._ready.wait()
                if self._closing:
                    return
                _, _, drain, number = heapq.heappop(self._tasks)
                self._active += 1
            try:
                if not drain.done.done():
                    self._upload(drain, number)
            finally:
                with self._ready:
                    self._active -= 1
                    self._ready.notify_all()

    def _upload(self, drain: Drain, number: int) -> None:
        offset, size = drain.pieces[number].offset, drain.pieces[number].size
        name = f"{drain.folder}/part-{number:05d}{drain.renamed.get(number, '')}.bin"
        try:
            left = drain.deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(f"{name}: the deadline passed before its upload could start")
            with drain.source.read(offset, size) as data:
                stored = self.store.create(name, data, timeout=min(left, _ATTEMPT_TIMEOUT_S))
        except StoreError as error:
            self._again(drain, number, error)
            return
        except Exception as error:  # noqa: BLE001 - a thread must hand every failure on, not die with it
            self._fail(drain, error)
            return
        with self._ready:
            drain.parts[number] = Part(name=name, offset=offset, size=size, crc32c=stored.crc32c)
            self._see_whole(drain)

    def _see_whole(self, drain: Drain) -> None:
        if len(drain.parts) == len(drain.pieces) and not drain.done.done():
            drain.last_byte = drain.last_byte or time.monotonic()
            drain.done.set_result([drain.parts[number] for number in sorted(drain.parts)])

    def _again(self, drain: Drain, number: int, error: StoreError) -> None:
        """Nothing is final before the drain's deadline: a front of the bucket's gives a passing 403 or 400 too."""
        if isinstance(error, (AlreadyExists, Corrupt)):  # the name is spent
            drain.renamed[number] = f"-{secrets.token_hex(4)}"
        tries = drain.tries[number] = drain.tries.get(number, 0) + 1
        pause = 0.0  # the store has backed off inside its own timeout
        if not isinstance(error, Unavailable):
            pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        if time.monotonic() + pause >= drain.deadline:
            self._fail(drain, error)
            return
        time.sleep(pause)
        with self._ready:
            self._put(drain, number)
            self._ready.notify_all()

    def _fail(self, drain: Drain, error: Exception) -> None:
        with self._ready:
            if not drain.done.done():
                drain.done.set_exception(error)
