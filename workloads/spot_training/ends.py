"""Ends: how a script ends, told from how its interpreter does. `finish()` is optional."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from types import TracebackType


class AtExit:
    """Calls `end` once, when this process ends by itself: by its last line or by `sys.exit()`, not by an exception."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._process = os.getpid()  # a fork's end is not ours
        self._failed = False
        self._before = sys.excepthook
        sys.excepthook = self._on_exception
        atexit.register(self._run)

    def cancel(self) -> None:
        """Nothing is left to do."""
        atexit.unregister(self._run)
        if sys.excepthook == self._on_exception:
            sys.excepthook = self._before

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._failed = True
        self._before(kind, error, trace)

    def _run(self) -> None:
        if os.getpid() == self._process and not self._failed:
            self._end()


def ended_well(error: BaseException | None) -> bool:
    """Whether a `with` block was left as a script that is done leaves it."""
    return error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
