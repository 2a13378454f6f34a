"""A clock that jumps: whoever waits for a time waits for nothing, and all that happens in between happens in order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")
_THREADS_S = 20.0


class _Jumping(selectors.DefaultSelector):
    """Where nothing is ready, it does not sleep until the next timer: it makes it that time."""

    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.loop.in_threads:  # real work takes no time on this clock
            return super().select(_THREADS_S if timeout is None or timeout > 0 else 0)
        ready = super().select(0 if timeout is not None else _THREADS_S)
        if not ready and timeout is not None and timeout > 0:
            self.loop.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on such a clock. What runs in `asyncio.to_thread` is waited for before time goes on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.in_threads = 0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self.in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._back)
        return future

    def _back(self, _: asyncio.Future[Any]) -> None:
        self.in_threads -= 1


def play(scenario: Coroutine[Any, Any, T]) -> T:
    """Run `scenario` on a clock that jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(scenario)
