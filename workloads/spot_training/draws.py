"""Draws: which lines of a user's program draw random numbers, for a rehearsal.

A trace function looks at the generators at each line of the user's own files: whatever changed them, in Python or in
C, was called from the line before. Torch's, NumPy's and Python's global generators; a generator of one's own is a
value like any other (`spot_training.survey`).
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from spot_training.users import is_users, place

_MOST = 200
Trace = Callable[[FrameType, str, Any], Any]


class Draws:
    """`follow` a loop; `take` what was drawn since the last time."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._states: dict[str, int] = {}
        self._at = ""
        self._apart = False

    def follow(self, frame: FrameType) -> None:
        """Look at every line from here on, in `frame` and in all that the user's own code calls."""
        if sys.gettrace() is not None:
            return  # a debugger, or a measurement of coverage: it was here first
        self._states, self._at = _states(), place(frame)
        frame.f_trace = self._on_line
        sys.settrace(self._on_call)

    def take(self) -> list[str]:
        """Each draw as "GENERATOR at FILE:LINE", in order."""
        self._look()
        found, self._found = self._found, []
        return found

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What happens inside is not the user's."""
        self._apart = True
        try:
            yield
        finally:
            self._apart = False
            if self._states:
                self._states = _states()

    def _on_call(self, frame: FrameType, _: str, __: Any) -> Trace | None:
        return self._on_line if not self._apart and is_users(frame.f_code.co_filename) else None

    def _on_line(self, frame: FrameType, event: str, _: Any) -> Trace:
        if not self._apart and event in ("line", "return"):
            self._look()
            caller = frame.f_back
            if event == "line":
                self._at = place(frame)
            elif caller is not None and is_users(caller.f_code.co_filename):
                self._at = place(caller)
        return self._on_line

    def _look(self) -> None:
        if not self._states:
            return
        now = _states()
        for name, state in now.items():
            if self._states.get(name, state) != state and len(self._found) < _MOST:
                self._found.append(f"{name} at {self._at}")
        self._states = now


def _states() -> dict[str, int]:
    """A number for each global generator that differs once it was drawn from."""
    states = {"torch": hash(torch.get_rng_state().numpy().tobytes()) if "numpy" in sys.modules else _torch_hash()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"torch.cuda:{device}"] = hash(bytes(state.tolist()))
    states["random"] = hash(random.getstate())
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _, words, *rest = numpy.random.get_state()
        states["numpy"] = hash((words.tobytes(), *rest))
    return states


def _torch_hash() -> int:
    return hash(bytes(torch.get_rng_state().tolist()))
