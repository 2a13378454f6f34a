"""What the trainer prints, followed in a thread of its own, within a budget.

A trainer may print anything: a progress bar that returns its carriage for weeks, a line of 200 MB, a million lines a
second. None of it may cost the event loop its ears, or the VM its memory. So lines are looked for here, in a thread
that reads a bounded piece at a time; what is more than the journal should hold is left out, counted and told
(`output_dropped`). Of a line that is written over (`\\r`) the last state counts, and a passing one now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

LONGEST_LINE = 4096  # bytes of a line that are told
_EVERY_S = 0.25
_PROGRESS_EVERY_S = 10.0  # how often a passing state of a line is told
_DROPPED_EVERY_S = 10.0
_LINES_PER_S, _LINES_AT_ONCE = 100, 2000
_BYTES_PER_S, _BYTES_AT_ONCE = 100_000, 1_000_000
_LAST_LINES = 100  # the trainer's last words are told whatever it printed before
_NEWEST = 256 << 10  # bytes looked at for lines at a time; of those before, lines are only counted
_MOST_COUNTED = 64 << 20  # bytes; those before are not even read
_PIECE = 64 << 10  # read at once: other threads get their turn in between
_KEEP_BYTES = 16 << 20  # of the file: what was told before is in the journal, and /run is memory
_PUNCH_HOLE = 0x03  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_libc = ctypes.CDLL(None, use_errno=True)


class Output:
    """Follows one trainer's `log_file`; `tell` gets each line, in this one's thread.

    An adopted trainer's lines begin where the agent before this one ended (a file beside the log says where): no line
    is told twice. `start` and `stop` are for the event loop, `read` is one look at the file.
    """

    def __init__(
        self, log_file: Path, *, adopted: bool, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._tell, self._clock = log_file, tell, clock
        self._told_file = log_file.with_suffix(".told")
        self._told = self._read_told() if adopted else 0
        self._write_told()  # what another trainer's output came to is not this one's
        self._freed = 0
        self._inside = False  # a line that is cut or passed over: what comes before its end is dropped
        self._uncounted = False  # nothing of that line was told, and it is no dropped line yet
        self._lines_left, self._bytes_left, self._counted_at = float(_LINES_AT_ONCE), float(_BYTES_AT_ONCE), clock()
        self._progress, self._progress_at = b"", float("-inf")
        self._dropped = self._dropped_bytes = self._unread = 0
        self._dropped_at = float("-inf")
        self._ending, self._silent = threading.Event(), threading.Event()
        self._over: asyncio.Future[None] | None = None

    @classmethod
    def start(cls, log_file: Path, *, adopted: bool, tell: Callable[[str], None]) -> Output:
        """Follow from now on, until `stop`."""
        output = cls(log_file, adopted=adopted, tell=tell)
        output._over = asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()  # its records carry what those of this task do
        threading.Thread(target=context.run, args=(output._follow, output._over), name="output", daemon=True).start()
        return output

    async def stop(self, timeout: float) -> None:
        """Tell what there is, and end. What has not been told after `timeout` seconds never is."""
        self._ending.set()
        try:
            if self._over:
                await asyncio.wait({self._over}, timeout=timeout)
        finally:
            self._silent.set()

    def _follow(self, over: asyncio.Future[None]) -> None:
        try:
            with self._path.open("rb", buffering=0) as file:
                last = False
                while not (last or self._silent.is_set()):
                    last = self._ending.wait(_EVERY_S)
                    self.read(file.fileno(), last=last)
        except OSError as error:
            log.warning("output_lost", error=str(error))
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                over.get_loop().call_soon_threadsafe(_set, over)

    def read(self, file: int, *, last: bool = False) -> None:
        """Tell what came since the last look. `last`: the line that has no end yet, too."""
        size = os.fstat(file).st_size
        self._told = min(self._told, size)
        self._refill(extra_lines=_LAST_LINES if last else 0)
        data = os.pread(file, _NEWEST, self._pass_over(file, size))
        end = self._told + len(data)
        if self._inside:
            data = self._after_the_cut(data)
        lines, rest = self._split(data)
        state = _state(rest)
        self._told = end - len(state) - (len(rest) - len(rest.rstrip(b"\r")))
        for line in self._affordable(lines):
            self._say(line)
        if (last and state) or len(state) > LONGEST_LINE:
            self._say(state)
            self._told, self._inside = end, True
        elif state not in (rest, self._progress) and self._clock() - self._progress_at >= _PROGRESS_EVERY_S:
            self._say(state)
            self._progress, self._progress_at = state, self._clock()
        self._say_what_is_dropped(last=last)
        self._write_told()
        if self._told - self._freed > 2 * _KEEP_BYTES:
            _free(self._path, self._freed, self._told - _KEEP_BYTES)
            self._freed = self._told - _KEEP_BYTES

    def _pass_over(self, file: int, size: int) -> int:
        """Of what there is before the newest bytes, count the lines; returns where those bytes begin."""
        newest = max(self._told, size - _NEWEST)
        if newest > self._told:
            before = self._dropped
            self._dropped_bytes += newest - self._told
            at = max(self._told, newest - _MOST_COUNTED)
            self._unread += at - self._told
            while at < newest and (piece := os.pread(file, min(_PIECE, newest - at), at)):
                self._dropped += piece.count(b"\n")
                at += len(piece)
            self._uncounted |= not self._inside or self._dropped > before
            self._told, self._inside = newest, True
        return newest

    def _after_the_cut(self, data: bytes) -> bytes:
        """`data` without what is left of a line whose beginning was told or passed over."""
        ends = [at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0]
        cut = min(ends) + 1 if ends else len(data)
        self._inside = not ends
        if ends:
            self._dropped += self._uncounted and data[cut - 1 : cut] == b"\n"
            self._uncounted = False
        self._dropped_bytes += cut
        return data[cut:]

    def _split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The newest whole lines, as many as may be told, and what has no end yet."""
        most = int(self._lines_left)
        *lines, rest = data.rsplit(b"\n", most + 1)
        if len(lines) > most:
            older = lines.pop(0)
            self._dropped += older.count(b"\n") + 1
            self._dropped_bytes += len(older) + 1
        return lines, rest

    def _affordable(self, lines: list[bytes]) -> list[bytes]:
        """The newest of `lines` whose bytes may be told."""
        left = self._bytes_left
        for index in range(len(lines) - 1, -1, -1):
            left -= min(len(lines[index]), LONGEST_LINE)
            if left < 0:
                self._dropped += index + 1
                self._dropped_bytes += sum(len(line) + 1 for line in lines[: index + 1])
                return lines[index + 1 :]
        return lines

    def _refill(self, *, extra_lines: int) -> None:
        now = self._clock()
        passed, self._counted_at = now - self._counted_at, now
        self._lines_left = min(_LINES_AT_ONCE, self._lines_left + passed * _LINES_PER_S) + extra_lines
        self._bytes_left = min(_BYTES_AT_ONCE, self._bytes_left + passed * _BYTES_PER_S) + extra_lines * LONGEST_LINE

    def _say(self, line: bytes) -> None:
        state = _state(line)
        self._dropped_bytes += max(0, len(state) - LONGEST_LINE)
        self._lines_left -= 1
        self._bytes_left -= min(len(state), LONGEST_LINE)
        known, self._progress = self._progress, b""
        if not self._silent.is_set() and not (known and state == known):  # told as a passing state already
            self._tell(_shown(state))
            time.sleep(0)  # the event loop's turn

    def _say_what_is_dropped(self, *, last: bool) -> None:
        now = self._clock()
        if not self._dropped_bytes or (not last and now - self._dropped_at < _DROPPED_EVERY_S):
            return
        if not self._silent.is_set():
            log.warning("output_dropped", lines=self._dropped, bytes=self._dropped_bytes, unread_bytes=self._unread)
        self._dropped = self._dropped_bytes = self._unread = 0
        self._dropped_at = now

    def _read_told(self) -> int:
        try:
            return int(self._told_file.read_text())
        except (OSError, ValueError):
            return 0

    def _write_told(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: told twice then
            file = os.open(self._told_file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(file, b"%020d" % self._told, 0)  # over the last one, at once: an agent may die here
            finally:
                os.close(file)


def _set(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a trainer's output, each as a terminal would show it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _NEWEST))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    if not lines[-1]:
        lines.pop()
    return [_shown(_state(line)) for line in lines[-count:]]


def _state(line: bytes) -> bytes:
    """What a terminal shows of it in the end: what follows the last carriage return that something follows."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _shown(line: bytes) -> str:
    text = line[:LONGEST_LINE].decode(errors="replace")
    return text if len(line) <= LONGEST_LINE else f"{text} [cut: {LONGEST_LINE} bytes of a longer line]"


def _free(path: Path, begin: int, end: int) -> None:
    """Give a part of a file back, while another process goes on writing it: it reads as zeros then. Where the file
    system can't, the file just grows."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        _libc.fallocate(file.fileno(), _PUNCH_HOLE, ctypes.c_long(begin), ctypes.c_long(end - begin))
