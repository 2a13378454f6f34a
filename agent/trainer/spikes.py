"""Spikes: each metrics line is held against those before it, as it comes; what follows a wild one is never committed.

A line comes before the snapshot that holds its step, so that this is known in time. Whether a value is wild depends on
the lines before it alone, wherever and however often the run was interrupted between them.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import structlog

from agent.checkpoint.rollback import Noted, lines_before, passed_over
from agent.trainer.host import Host

log = structlog.get_logger()

_CALL_TIMEOUT_S = 30.0
_FEWEST = 3  # values that make a median


class Spikes:
    """Of one attempt. `found` is set once there is one, which `noted` tells."""

    def __init__(self, host: Host, attempt: int) -> None:
        self.rule = host.run.supervision.spike
        self.found = asyncio.Event()
        self.noted: Noted | None = None
        self._host = host
        self._attempt = attempt
        self._known: dict[int, float] = {}  # values that were as they should be, by step
        self._begun = False
        self._early: list[tuple[int, Mapping[str, Any], dict[str, Any] | None]] = []
        self._without = 0  # lines in a row, from the first, that lacked the metric

    async def begin(self, step: int) -> None:
        """The trainer starts at `step`, or had that committed when it was found: what was logged before is learnt. May
        raise StoreError."""
        if self.rule is None:
            return
        saver = self._host.saver
        checkpoints, first = saver.checkpoints, max(0, step - self._window)
        before = await asyncio.to_thread(
            lines_before, checkpoints.store, checkpoints.line, step, first=first, timeout=_CALL_TIMEOUT_S
        )
        for at, line in sorted((before | dict(saver.lines.between(first, step))).items()):
            value = _number(line.get(self.rule.metric))
            if value is not None and math.isfinite(value):
                self._known[at] = value
        self._begun = True
        early, self._early = self._early, []
        for at, values, data in early:
            self.see(at, values, data)

    def passed_over(self) -> dict[str, Any] | None:
        """What data the trainer does without; None where it never passes over any."""
        if self.rule is None or not self.rule.skip:
            return None
        return passed_over(self._host.saver.checkpoints.line.known)

    def see(self, step: int, values: Mapping[str, Any], data: dict[str, Any] | None = None) -> None:
        """A line of `step` has come."""
        if self.rule is None or self.noted:
            return
        if not self._begun:
            self._early.append((step, values, data))
            return
        value = _number(values.get(self.rule.metric))
        if value is None:
            self._tell_missing(values)
            return
        before = [self._known[at] for at in self._known if step - self._window <= at < step]
        median = statistics.median(before) if len(before) >= _FEWEST else None
        above = median is not None and 0 < median * self.rule.factor < value
        if math.isfinite(value) and not above:
            self._known[step] = value
            self._known = {at: known for at, known in self._known.items() if at >= step - self._window}
            return
        self.noted = Noted(
            self._attempt,
            step,
            self.rule.metric,
            values[self.rule.metric],
            median,
            good=max((at for at in self._known if at < step), default=None),
            data=data if self.rule.skip else None,
        )
        self._host.saver.checkpoints.line.spoil(asdict(self.noted))
        told = {name: getattr(self.noted, name) for name in ("metric", "step", "value", "median", "good")}
        log.warning("spike", **told)
        self.found.set()

    @property
    def _window(self) -> int:
        assert self.rule and self.rule.window.steps
        return self.rule.window.steps

    def _tell_missing(self, values: Mapping[str, Any]) -> None:
        assert self.rule
        self._without = self._without + 1 if not self._known else 0
        if self._without == self._window:
            log.warning("spike_metric_missing", metric=self.rule.metric, logged=sorted(values))


def _number(value: object) -> float | None:
    """As a session logs it: what JSON has no number for is text."""
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(str(value))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
