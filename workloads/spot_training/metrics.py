"""Metrics: one line a step, in the state's folder and to the agent, which commits it with the step.

All that is logged in one iteration, wherever it stands in the loop's body, is one line. Strict JSON: what JSON has no
number for (NaN, infinities) is text.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spot_training.protocol.messages import Line


class Metrics:
    """The lines of a session. `send` reaches the agent, or does nothing without one."""

    def __init__(self, folder: Path, send: Callable[[Line], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "metrics.jsonl").open("a", buffering=1)
        self._send = send
        self._lock = threading.Lock()
        self._line: dict[str, Any] = {}
        self._sent: dict[int, Line] = {}
        self.since: Callable[[], dict[str, Any]] | None = None
        """What data was handed out since it was last asked, where somebody wants to know."""

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Add to the line of `step`; a value logged twice is the later one.

        Raises:
            TypeError: a value is neither a number, text nor a list or dict of them.
        """
        if self._line and self._line["step"] != step:
            self.flush()
        line = {"step": step} | self._line | {name: _strict(name, value) for name, value in values.items()}
        self._line = line | {"step": step, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}

    def begun(self, step: int) -> dict[str, Any]:
        """What was logged for `step` so far."""
        ours = bool(self._line) and self._line["step"] == step
        return {name: value for name, value in self._line.items() if name not in ("step", "time")} if ours else {}

    def flush(self, *, before: int | None = None) -> None:
        """The line is whole; with `before`, where it is of an earlier step."""
        if before is not None and self._line and self._line["step"] >= before:
            return
        line, self._line = self._line, {}
        if not line:
            return
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        message = Line(line["step"], line, self.since() if self.since else None)
        with self._lock:
            self._sent[message.step] = message
        self._send(message)

    def committed(self, step: int) -> None:
        """Lines before `step` need not be sent again."""
        with self._lock:
            self._sent = {at: line for at, line in self._sent.items() if at >= step}

    def resend(self) -> None:
        """All that is not committed, to a new agent."""
        with self._lock:
            lines = sorted(self._sent.items())
        for _, line in lines:
            self._send(line)

    def close(self) -> None:
        self.flush()
        self._file.close()


def _strict(name: str, value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "size", None) is not None and callable(getattr(value, "tolist", None)):
        value = value.tolist()  # a tensor, an array, a NumPy number
    if value is None or isinstance(value, bool | int | str):
        return value if type(value) in (bool, int, str) or value is None else type(value).__mro__[-2](value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return float(value) if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, list | tuple):
        return [_strict(name, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _strict(f"{name}.{key}", item) for key, item in value.items()}
    raise TypeError(f"session.log({name}=...): {type(value).__name__} is neither a number nor text")
