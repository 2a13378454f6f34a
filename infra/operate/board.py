"""How far each run is, while they run: a table that is drawn again, or, in a pipe, lines as things happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.operate.status.standing import Standing
from infra.operate.status.view import curve, duration

_LINE_EVERY_S = 30.0
_STYLES = {"complete": "green", "failed": "bold red", "stopped": "yellow", "not saved": "bold red"}
_TAKEN = ("preempted", "maintenance")


@dataclass
class _Known:
    state: str = "waiting"
    standing: Standing | None = None
    told: float = float("-inf")
    told_taken: int = 0

    @property
    def taken(self) -> int:
        return sum(incident["kind"] in _TAKEN for incident in self.standing.incidents) if self.standing else 0


@dataclass
class Board:
    """`labels` of the runs by their names, in order. A context manager: inside it the table is on the screen."""

    labels: Mapping[str, str]
    console: Console
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, _Known] = field(default_factory=dict)
    _live: Live | None = None

    def __post_init__(self) -> None:
        self._known = {name: _Known() for name in self.labels}

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self._live = Live(self.table(), console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def note(self, name: str, state: str, standing: Standing | None = None) -> None:
        """What is known of an experiment now."""
        known = self._known[name]
        changed, known.state, known.standing = state != known.state, state, standing or known.standing
        if self._live:
            self._live.update(self.table(), refresh=True)
        elif changed or known.taken > known.told_taken or self.clock() >= known.told + _LINE_EVERY_S:
            taken = known.taken > known.told_taken
            known.told, known.told_taken = self.clock(), known.taken
            self.say(f"{name}: {state}{self._progress(known)}" + (", was taken away and goes on" if taken else ""))

    def _progress(self, known: _Known) -> str:
        standing = known.standing
        if standing is None or standing.step is None:
            return ""
        of = f" of {standing.steps}" if standing.steps else ""
        loss = f", loss {standing.losses[-1][1]:.4g}" if standing.losses else ""
        return f", step {standing.step}{of}{loss}"

    def table(self) -> Table:
        """The picture."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("run", "state", "step", "loss", "", "left", "taken away"):
            table.add_column(heading, no_wrap=True)
        for name, label in self.labels.items():
            known = self._known[name]
            standing = known.standing
            step = loss = drawn = left = "-"
            if standing is not None:
                step = "-" if standing.step is None else f"{standing.step}/{standing.steps or '?'}"
                loss = f"{standing.losses[-1][1]:.4g}" if standing.losses else "-"
                drawn = curve([value for _, value in standing.losses], 16)
                left = "-" if standing.seconds_left is None else duration(standing.seconds_left)
            state = known.state if known.state not in _STYLES else f"[{_STYLES[known.state]}]{known.state}[/]"
            table.add_row(label, state, step, loss, drawn, left, str(known.taken))
        return table
