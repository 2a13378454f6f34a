"""Being asked to stop: Ctrl-C, SIGTERM, SIGHUP, and a reader of our output that has gone. None of them ends a save."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class AskedToStop:
    """`by`: the first signal that came; `times`: how many came."""

    by: signal.Signals | None = None
    times: int = 0

    def __bool__(self) -> bool:
        return self.by is not None

    @property
    def status(self) -> int:
        """The exit status of a program that this signal ended."""
        return 128 + (self.by or 0)

    def ask(self, by: signal.Signals) -> None:
        self.by = self.by or by
        self.times += 1


@contextlib.contextmanager
def heard() -> Iterator[AskedToStop]:
    """Inside the block these signals do nothing but ask; those that were ignored (nohup) still are."""
    asked = AskedToStop()

    def hear(number: int, _: FrameType | None) -> None:
        asked.ask(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in _ASKING if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, hear)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
