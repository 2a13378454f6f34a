"""Reading again what may pass: with pauses that grow, and are never the same for two readers."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.store import Forbidden, StoreError

READ_TIMEOUT_S = 120.0
"""Of one picture, all tries together: below supervision.hang_timeout, so that the reason is told and not a hang."""
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINTR,
    errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ENOBUFS,
    errno.ENOMEM, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip
"""What a file server's mount answers while it is away; EIO is a failing disk's word too, and is told in the end."""

T = TypeVar("T")


def may_pass(error: Exception) -> bool:
    """Whether the same call could succeed a while later."""
    if isinstance(error, StoreError):
        return error.may_pass and not isinstance(error, Forbidden)
    return isinstance(error, OSError) and error.errno in _PASSING


@dataclass(frozen=True)
class Patience:
    """How long a read is tried. Its clock is a parameter."""

    timeout: float = READ_TIMEOUT_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    chance: Callable[[float, float], float] = random.uniform

    def read(self, once: Callable[[float], T]) -> T:
        """`once(seconds left)` until it answers. Raises its last error: at once where that doesn't pass."""
        end, pause = self.clock() + self.timeout, _PAUSE_S
        while True:
            try:
                return once(max(0.1, end - self.clock()))
            except (StoreError, OSError) as error:
                waits = self.chance(pause / 2, pause)
                if not may_pass(error) or self.clock() + waits >= end:
                    raise
            self.sleep(waits)
            pause = min(_LONGEST_PAUSE_S, pause * 2)
