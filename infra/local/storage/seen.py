"""The log of requests seen: what a test or a benchmark looks up afterwards. It never holds a token."""

from __future__ import annotations

import threading
from dataclasses import dataclass

_KEPT = 20_000


@dataclass(frozen=True)
class Seen:
    """One request that was answered or cut off."""

    number: int
    at: float
    """Unix seconds at which its headers had come."""
    seconds: float
    method: str
    path: str
    action: str
    bucket: str
    name: str
    identity: str
    status: int
    """The answer's status, 0 if there was none."""
    received: int
    """Bytes of the body received."""
    sent: int
    """Bytes of the answer's body sent."""
    fault: str
    """The kind of the fault that struck it, "" for none."""


class SeenLog:
    """The newest requests, in the order in which they were answered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[int, Seen] = {}
        self._number = 0

    def next_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def put(self, entry: Seen) -> None:
        """Add an entry, or replace the one of the same number."""
        with self._lock:
            self._entries[entry.number] = entry
            if len(self._entries) > _KEPT:
                del self._entries[next(iter(self._entries))]

    def since(self, number: int) -> list[Seen]:
        """All entries with a higher number."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.number > number]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
