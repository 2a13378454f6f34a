"""What `spot run` shows: the trainer's output as it is, and between it what happened to the run.

On a terminal the trainer's own bytes are shown, so that a progress bar stays one. In a pipe its lines are those of the
journal, where a bar is a line now and then. Nothing is wrapped; what reads us may go away, and nothing stops for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from infra.local.asked_to_stop import AskedToStop
from infra.local.demo.scenario import describe, named
from infra.local.vm import Event

_LOOK_S = 0.1
_PIECE = 64 << 10
_STYLES = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
_NOT_NEWS = {"library", "logind_absent", "metadata_absent", "cloud_log_away", "machine_unknown", "scope_refused"}
"""Warnings that say nothing at home."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Not the end of the program, as it is by default: a save may be under way."""
        raise BrokenPipeError


class Screen:
    """Standard output; `asked` is told when nobody reads it any more. `counted`: what checkpoints are numbered by."""

    def __init__(self, asked: AskedToStop, console: Console | None = None, *, counted: str = "step") -> None:
        self.counted = counted
        self._asked = asked
        self._console = console or _Console(soft_wrap=True, highlight=False)
        self._lock = threading.Lock()
        self._line = b""  # what stands in the trainer's line that has no end yet

    @property
    def live(self) -> bool:
        return self._console.is_terminal

    def event(self, event: Event) -> None:
        """A line of the journal."""
        if event.name == "trainer_output":
            if not self.live:
                self._write(f"{event.values.get('message', '')}\n".encode())
            return
        text, style = tell(event, self.counted)
        if text:
            self.say(text, style=style)

    def say(self, text: str, *, style: str = "bold") -> None:
        """A line of our own; the trainer's line that it comes into is shown again below it."""
        with self._lock, self._reaching():
            if self._line:
                sys.stdout.buffer.write(b"\r\x1b[K")
                sys.stdout.buffer.flush()
            self._console.print(Text(text, style=style))
            sys.stdout.flush()
            sys.stdout.buffer.write(self._line)
            sys.stdout.buffer.flush()

    def show(self, table: RenderableType) -> None:
        with self._lock, self._reaching():
            self._console.print(table, soft_wrap=False)

    @contextlib.contextmanager
    def following(self, log_of: Callable[[], Path]) -> Iterator[None]:
        """On a terminal: show what is written to the trainer's log, wherever that is just then."""
        if not self.live:
            yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(log_of, over), name="screen", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._end_line()

    def _follow(self, log_of: Callable[[], Path], over: threading.Event) -> None:
        path, at, last = Path(), 0, False
        while not last:
            last = over.wait(_LOOK_S)
            if log_of() != path:
                path, at = log_of(), 0
                self._end_line()
            with contextlib.suppress(OSError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < at:  # the next trainer's
                    at = 0
                    self._end_line()
                file.seek(at)
                while piece := file.read(_PIECE):
                    at += len(piece)
                    self._write(piece)

    def _end_line(self) -> None:
        """What its trainer left without an end."""
        if self._line:
            self._write(b"\n")

    def _write(self, piece: bytes) -> None:
        with self._lock, self._reaching():
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            whole, end, rest = piece.rpartition(b"\n")
            line = rest if end or whole else self._line + piece
            self._line = line.rstrip(b"\r").rpartition(b"\r")[2][-_PIECE:] if self.live else b""

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._lose()
            self._asked.ask(signal.SIGPIPE)
        except OSError:  # a terminal that is closed: SIGHUP says so as well
            self._lose()

    def _lose(self) -> None:
        """From here on what is written goes nowhere; so does what is still in a buffer."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def tell(event: Event, counted: str = "step") -> tuple[str, str]:
    """A journal line for people, and how it looks; empty where it says nothing to them. `counted` as in `describe`."""
    values = event.values
    style = _STYLES.get(str(values.get("level")), "bold")
    if event.name == "committed" and values["reason"] == "cadence":
        return (
            f"{named(values, counted)} {'saved' if counted == 'step' else 'stored'} ({values['durable_s']:.1f} s)",
            "green",
        )
    if event.name == "output":  # what is no journal line: an agent that could not even begin
        return str(values.get("message", "")), "yellow"
    if text := describe(event, counted):
        return text, style
    if style == "bold" or event.name in _NOT_NEWS:
        return "", ""
    said = next((str(values[key]) for key in ("error", "why", "reason", "message") if values.get(key)), "")
    return (f"{event.name.replace('_', ' ')}: {said}", style) if said else ("", "")
