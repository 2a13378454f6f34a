"""Guard: keeps snapshots out of the optimizer's update, and the update out of snapshots.

Between updates the parameters stand still, so a snapshot may be copied at any time in a step, forward and backward
included. It belongs to the boundary that was noted when the last update ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spot_training.state import Boundary


class TornError(Exception):
    """An update failed half way: the state is neither this boundary's nor the next one's."""


class Guard:
    """Two sides: the training loop calls `updating`, the stager `reading`."""

    def __init__(self, boundary: Boundary) -> None:
        self.boundary = boundary
        self._changed = threading.Condition()
        self._updating = False
        self._readers = 0
        self._wanted = False
        self._torn = False
        self._held = False

    @contextmanager
    def updating(self, note: Callable[[], Boundary], wants: Callable[[Boundary], bool]) -> Iterator[None]:
        """Run an update. Waits for a snapshot that is being copied, and for one that was wanted of this very boundary.

        `note` takes the new boundary when the update is done; where `wants` says so, the next update waits until
        `release` says that a snapshot of it was copied, or won't be.
        """
        with self._changed:
            self._changed.wait_for(lambda: not (self._readers or self._wanted or self._held))
            self._updating = True
        try:
            yield
            boundary = note()
        except BaseException:
            with self._changed:
                self._torn = True
                self._updating = False
                self._changed.notify_all()
            raise
        with self._changed:
            self.boundary = boundary
            self._wanted = wants(boundary)
            self._updating = False
            self._changed.notify_all()

    @contextmanager
    def reading(self, *, timeout: float | None) -> Iterator[Boundary]:
        """Hold the state still while a snapshot is copied.

        Raises:
            TornError: an update failed; there is nothing whole to copy.
            TimeoutError: an update took longer than `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._updating, timeout):
                raise TimeoutError(f"the optimizer's update did not end within {timeout:.1f} s")
            if self._torn:
                raise TornError("an update failed half way; nothing is saved until the trainer is restarted")
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
