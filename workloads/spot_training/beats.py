"""Beats: the trainer's signs of life, and which phase it is in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from spot_training.protocol.messages import Heartbeat, Phase

BEAT_S = 5.0
_BY_ITSELF: frozenset[Phase] = frozenset({"starting", "restoring", "finishing"})


class Beats:
    """Says to the agent what the trainer is at. `send` reaches the agent, or does nothing without one.

    While it starts, restores or finishes, a thread beats: there the main thread may be busy for long in code that is
    not ours, and the agent bounds the phase as a whole. While it trains or evaluates nobody beats but the loop itself:
    a thread that did would make a hung loop look alive.
    """

    def __init__(self, send: Callable[[Heartbeat], None], step: Callable[[], int]) -> None:
        self._send = send
        self._step = step
        self._changed = threading.Condition()  # held while sending: no beat of a phase comes after the phase's end
        self._phase: Phase = "starting"
        self._closed = False

    def start(self) -> None:
        """Beat from now on."""
        self.beat()
        threading.Thread(target=self._run, name="beats", daemon=True).start()

    def enter(self, phase: Phase) -> None:
        """The phase is `phase` from now on."""
        with self._changed:
            self._phase = phase
            self._changed.notify_all()
            self._send(Heartbeat(self._step(), phase=phase))

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """In `phase` for a while, then in the one before it."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def beat(self, *, boundary: bool = False) -> None:
        """A sign of life; `boundary`: an update is just done."""
        with self._changed:
            self._send(Heartbeat(self._step(), boundary, self._phase))

    def close(self) -> None:
        """No more beats by themselves."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                by_itself = self._phase in _BY_ITSELF
                changed = self._changed.wait(BEAT_S if by_itself else None)
                if by_itself and not changed and not self._closed:
                    self._send(Heartbeat(self._step(), phase=self._phase))
