"""What a run left in its bucket, read as an operator would: metrics, incidents, checkpoints, result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.store import NotFound, Store
from agent.store.formats import LEDGER_FORMAT, LINE_FORMAT, refuse_newer
from agent.store.names import EVENTS, LINE

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RunRecords:
    """A run's records in one store."""

    store: Store

    def metrics(self) -> list[dict[str, Any]]:
        """One line a step, in order, of what was committed. A step that was trained again: the later commit's."""
        lines: dict[int, dict[str, Any]] = {}
        for entry in self._line():
            if entry["lines"]:
                for text in self.store.read(entry["lines"], timeout=_TIMEOUT_S).splitlines():
                    values = json.loads(text)
                    lines[values["step"]] = values
        return [values for _, values in sorted(lines.items())]

    def newest(self) -> dict[str, Any] | None:
        """The newest entry of the run's line; None where nothing has begun."""
        first = self.store.list(LINE, timeout=_TIMEOUT_S, limit=1)
        return self._read(first[0].name, reads=LINE_FORMAT) if first else None

    def _line(self) -> list[dict[str, Any]]:
        """The entries of the run's line, oldest first: their numbers count down."""
        names = sorted((stored.name for stored in self.store.list(LINE, timeout=_TIMEOUT_S)), reverse=True)
        return [self._read(name, reads=LINE_FORMAT) for name in names]

    def records(self) -> list[dict[str, Any]]:
        """Incidents and resumes, in the order they began."""
        names = [stored.name for stored in self.store.list(EVENTS, timeout=_TIMEOUT_S)]
        return [self._read(name, reads=LEDGER_FORMAT) for name in sorted(names)]

    def _read(self, name: str, *, reads: int) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.store.read(name, timeout=_TIMEOUT_S))
        refuse_newer(values, reads=reads, where=f"{self.store.url}/{name}")
        return values

    def result(self) -> dict[str, bytes]:
        """The files of the finished model; none where its program handed none over. NotFound: it is not complete."""
        newest = self._line()[-1:]
        if not newest or newest[0]["kind"] != "done":
            raise NotFound(f"{self.store.url} has no result: the run is not complete")
        if not newest[0]["result"]["result"]:
            return {}
        prefix = newest[0]["result"]["result"] + "/"
        return {
            stored.name.removeprefix(prefix): self.store.read(stored.name, timeout=_TIMEOUT_S)
            for stored in self.store.list(prefix, timeout=_TIMEOUT_S)
        }
