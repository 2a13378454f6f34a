"""Being asked to stop: Ctrl-C, SIGTERM, SIGHUP, and a reader of our output that has gone. None of them ends a save."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
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
def heard(*, tied: bool = False) -> Iterator[AskedToStop]:
    """Inside the block these signals do nothing but ask; those that were ignored (nohup) still are.

    `tied`: so does the end of standard input, which whoever started this program holds open as long as it lives.
    """
    asked = AskedToStop()
    if tied:
        threading.Thread(target=_ask_at_its_end, args=(asked, sys.stdin.fileno()), name="tied", daemon=True).start()

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


def _ask_at_its_end(asked: AskedToStop, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1 << 10):
            pass
    asked.ask(signal.SIGTERM)
