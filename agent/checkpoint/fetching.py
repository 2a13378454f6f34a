"""Fetching: one checkpoint at a time comes into this VM's memory, however often its trainer fails meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from agent.checkpoint.restore import Fetched


class Fetching:
    """Threads can't be cancelled: a fetch that nobody waits for any more is told to stop, and the next one begins when
    it has, for there may be no memory for two."""

    def __init__(self) -> None:
        self._under_way: asyncio.Future[Fetched | None] | None = None

    async def fetch(self, call: Callable[[threading.Event], Fetched | None]) -> Fetched | None:
        """What `call` gives, in a thread; it is given what is set when it is to stop."""
        if self._under_way:
            await asyncio.wait({self._under_way})
        stop = threading.Event()
        self._under_way = asyncio.ensure_future(asyncio.to_thread(call, stop))
        try:
            return await asyncio.shield(self._under_way)
        except asyncio.CancelledError:
            stop.set()
            self._under_way.add_done_callback(_let_go)
            raise


def _let_go(ended: asyncio.Future[Fetched | None]) -> None:
    if not ended.cancelled() and not ended.exception() and (fetched := ended.result()):
        fetched.arena.close()
