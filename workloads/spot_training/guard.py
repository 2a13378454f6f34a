"""Guard: keeps snapshots out of updates, and updates out of snapshots.

*Open* from the top of the loop to the iteration's first update: parameters and optimizer state stand still, so a
snapshot may be copied at any time, in the middle of forward or backward. *Closed* from there to the next top: nothing
is copied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from spot_training.state import Boundary


class Guard:
    """Two sides: the training loop calls `open` and `close`, the stager `reading`."""

    def __init__(self, boundary: Boundary) -> None:
        self.boundary = boundary
        self._changed = threading.Condition()
        self._open = True
        self._readers = 0
        self._wanted = False
        self._held = False

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self, boundary: Boundary, *, wanted: bool = False) -> None:
        """The loop is at its top, with this boundary. `wanted`: the next update waits until `release` says that a
        snapshot of it was copied, or won't be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted)  # where no update came between
            self.boundary = boundary
            self._wanted = wanted
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """An update begins. Waits for a snapshot that is being copied, and for one that is wanted of this boundary."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._readers or self._wanted or self._held))
            self._open = False

    @contextmanager
    def reading(self, *, timeout: float | None) -> Iterator[Boundary]:
        """Hold the state still while a snapshot is copied.

        Raises:
            TimeoutError: the loop did not come to its top within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._open, timeout):
                raise TimeoutError(
                    f"step {self.boundary.step} was behind its update for all of the {timeout:.1f} s: what follows the "
                    "update is part of the step. Move what takes long (an evaluation) to the top of the loop"
                )
            self._readers += 1
        try:
            yield self.boundary
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def hold(self) -> None:
        """Let no further update begin: the trainer is about to be stopped."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """The wanted snapshot was copied, or will not be: let the next update go on."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()
