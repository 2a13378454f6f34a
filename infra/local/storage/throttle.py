"""How fast the server lets bytes go: per stream, in total, and how long until the first byte of an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

# A late sleeper may catch up this much, so that the rate is met on average.
_CATCH_UP_S = 0.05
_PIECE_S = 0.01
_SMALLEST_PIECE = 64 << 10


class Throttle(BaseModel):
    """Limits; null means none. The total holds for each direction, as on a network card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream_bytes_per_s: float | None = Field(default=None, gt=0)
    total_bytes_per_s: float | None = Field(default=None, gt=0)
    first_byte_s: float = Field(default=0.0, ge=0)


class _Line:
    """One line of bytes: each booking starts where the last one ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def book(self, count: int, rate: float | None) -> float:
        """The time at which `count` more bytes are through."""
        if rate is None:
            return 0.0
        with self._lock:
            self._free_at = max(self._free_at, self._clock() - _CATCH_UP_S) + count / rate
            return self._free_at


class Pace:
    """The pace of one request's bytes in one direction."""

    def __init__(self, throttles: Throttles, total: _Line) -> None:
        self._throttles = throttles
        self._total = total
        self._stream = _Line(throttles.clock)

    @property
    def limited(self) -> bool:
        limits = self._throttles.limits
        return bool(limits.stream_bytes_per_s or limits.total_bytes_per_s)

    def piece(self, most: int) -> int:
        """How many bytes to move at once so that waits stay short; `most` when nothing is throttled."""
        limits = self._throttles.limits
        rates = [rate for rate in (limits.stream_bytes_per_s, limits.total_bytes_per_s) if rate]
        return min(most, max(_SMALLEST_PIECE, int(min(rates) * _PIECE_S))) if rates else most

    def passed(self, count: int) -> None:
        """Wait until `count` more bytes would have gone through."""
        limits = self._throttles.limits
        until = max(
            self._stream.book(count, limits.stream_bytes_per_s),
            self._total.book(count, limits.total_bytes_per_s),
        )
        if until:
            self._throttles.sleep(max(0.0, until - self._throttles.clock()))


class Throttles:
    """The limits in force, and the lines that all streams share."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.clock = clock
        self.sleep = sleep
        self.limits = Throttle()
        self._up = _Line(clock)
        self._down = _Line(clock)

    def upload(self) -> Pace:
        return Pace(self, self._up)

    def download(self) -> Pace:
        return Pace(self, self._down)

    def first_byte(self) -> None:
        """Wait as long as an answer's first byte takes."""
        if self.limits.first_byte_s:
            self.sleep(self.limits.first_byte_s)
