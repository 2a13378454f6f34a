"""The demo's picture: two runs side by side, what just happened, and the table at the end."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.local.demo.scenario import CADENCE
from infra.local.demo.verdict import Comparison
from infra.local.fleet import Fleet
from infra.local.interruptions import LEGEND, Interruption, draw

_LINES = 12


@dataclass
class View:
    """Live on a terminal; plain lines elsewhere."""

    console: Console
    max_steps: int = 1
    fleets: dict[str, Fleet] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    _said: deque[Text] = field(default_factory=lambda: deque(maxlen=_LINES))
    _live: Live | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self.draw, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str, *, style: str = "") -> None:
        """One thing that happened, with the seconds since the start."""
        line = Text(f"{time.monotonic() - self.begun:7.1f} s  ", style="dim").append(text, style=style)
        with self._lock:
            self._said.append(line)
            if not self._live:
                self.console.print(line)

    def draw(self) -> RenderableType:
        """The live picture."""
        runs = Table.grid(padding=(0, 2))
        for name, fleet in list(self.fleets.items()):
            step = fleet.vm.last_step() if fleet.vms else 0
            state = "VM is off" if not fleet.vms or fleet.vm.off_at else f"VM boot {fleet.vm.boot}"
            runs.add_row(name, ProgressBar(self.max_steps, step, width=40), f"step {step}/{self.max_steps}", state)
        with self._lock:
            said = Group(*self._said)
        return Group(Panel(runs, title="training", title_align="left"), Panel(said, title="events", title_align="left"))

    def conclude(self, rows: list[Interruption], comparison: Comparison) -> None:
        """Table and verdict."""
        self.console.print(draw(rows))
        self.console.print(
            f"{LEGEND} What no notice comes for costs the steps since the last checkpoint (every {CADENCE} here).",
            style="dim",
        )
        if comparison.identical:
            self.console.print(
                f"IDENTICAL: {comparison.steps} losses, the finished model, optimizer state and RNG equal those of the "
                "uninterrupted run, bit for bit.",
                style="bold green",
            )
        else:
            self.console.print(
                f"NOT IDENTICAL: the first difference is {comparison.first_difference}", style="bold red"
            )
