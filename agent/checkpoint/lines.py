"""Metrics lines on their way: each step's comes with the first checkpoint past it, the last ones with the run's end."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.store.names import METRICS

Lines = Mapping[int, dict[str, Any]]


@dataclass(frozen=True)
class LinesObject:
    """Lines as one object of the bucket; none, where `name` is empty."""

    name: str = ""
    body: bytes = b""

    @classmethod
    def of(cls, lines: Lines, *, attempt: int, token: str) -> LinesObject:
        """`token` makes its name another one where an earlier save may have used it."""
        if not lines:
            return cls()
        name = f"{METRICS}{min(lines):012d}-{max(lines):012d}-{attempt:05d}{token and '-'}{token}.jsonl"
        return cls(name, "".join(json.dumps(lines[at]) + "\n" for at in sorted(lines)).encode())


@dataclass
class MetricsLines:
    """What was logged and is in no checkpoint yet. Said again for a step, the newer line counts."""

    _by_step: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, step: int, values: dict[str, Any]) -> None:
        self._by_step[step] = values

    def void_from(self, step: int) -> None:
        """A trainer starts at `step`: what comes after will be logged again."""
        self._keep(lambda at, _: at < step)

    def between(self, first: int, end: int) -> Lines:
        return {at: line for at, line in self._by_step.items() if first <= at < end}

    def committed(self, written: Lines, step: int) -> None:
        """They came with the checkpoint of `step`, or are older than it; one that was said anew meanwhile stays."""
        self._keep(lambda at, line: at >= step and written.get(at) is not line)

    def rest(self, step: int, *, attempt: int) -> LinesObject:
        """What is left of a run that ends with `step`, under a name of its own."""
        return LinesObject.of(self.between(0, step + 1), attempt=attempt, token=secrets.token_hex(4))

    def _keep(self, wanted: Callable[[int, dict[str, Any]], bool]) -> None:
        self._by_step = {at: line for at, line in self._by_step.items() if wanted(at, line)}
