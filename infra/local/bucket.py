"""What a run left in its bucket, read as an operator would: metrics, incidents, checkpoints, result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.store import Store
from agent.store.names import EVENTS, METRICS

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RunRecords:
    """A run's records in one store."""

    store: Store

    def metrics(self) -> list[dict[str, Any]]:
        """One line a step, in order. Where two attempts trained a step, the later attempt's line counts."""
        lines: dict[int, tuple[int, dict[str, Any]]] = {}
        for stored in self.store.list(METRICS, timeout=_TIMEOUT_S):
            attempt = int(stored.name.removesuffix(".jsonl").rpartition("-")[2])
            for text in self.store.read(stored.name, timeout=_TIMEOUT_S).splitlines():
                line = json.loads(text)
                if lines.get(line["step"], (-1, {}))[0] <= attempt:
                    lines[line["step"]] = (attempt, line)
        return [line for _, (_, line) in sorted(lines.items())]

    def records(self) -> list[dict[str, Any]]:
        """Incidents and resumes, in the order they began."""
        names = [stored.name for stored in self.store.list(EVENTS, timeout=_TIMEOUT_S)]
        return [json.loads(self.store.read(name, timeout=_TIMEOUT_S)) for name in sorted(names)]

    def result(self) -> dict[str, bytes]:
        """The files of the finished model. Raises NotFound while the run is not complete."""
        done = json.loads(self.store.read("done.json", timeout=_TIMEOUT_S))
        prefix = done["result"] + "/"
        return {
            stored.name.removeprefix(prefix): self.store.read(stored.name, timeout=_TIMEOUT_S)
            for stored in self.store.list(prefix, timeout=_TIMEOUT_S)
        }
