"""Notices: each word that this VM, or the run on it, is about to stop. All sources end in one queue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent.config.causes import Cause

Source = Literal["metadata", "maintenance", "logind", "sigterm", "drill"]


@dataclass(frozen=True, slots=True)
class Notice:
    """`cause` is what its source alone can tell: a preemption too arrives as SIGTERM or through logind, and whether
    it was one is for `instance/preempted` to say."""

    source: Source
    cause: Cause
    at: float
    """`time.monotonic()` seconds at which we saw it."""
    detail: str = ""


class Notices:
    """The queue. Make it inside the running event loop; `clock` gives seconds.

    >>> notices = Notices()
    >>> notices.post("drill", "drill")           # from any thread, a signal handler's callback included
    >>> notice = await notices.next()
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._queue: asyncio.Queue[Notice] = asyncio.Queue()

    def post(self, source: Source, cause: Cause, detail: str = "") -> Notice:
        """Queue a notice seen now. Never waits."""
        notice = Notice(source, cause, self.clock(), detail)
        if threading.get_ident() == self._thread:
            self._queue.put_nowait(notice)
        else:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, notice)
        return notice

    async def next(self) -> Notice:
        """The oldest notice not taken yet; waits for one."""
        return await self._queue.get()

    def waiting(self) -> int:
        """How many are not taken yet."""
        return self._queue.qsize()
