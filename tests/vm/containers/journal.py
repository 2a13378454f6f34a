"""A VM's journal, read from outside while it is written: it is on the VM's disk, which outlives the VM here."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class VmError(Exception):
    """A VM did not do what was waited for in time; the text ends with the last lines of its journal."""


@dataclass(frozen=True)
class Line:
    """One entry. `at`: when it was written, by the VM's journald, in the monotonic seconds that container and host
    share."""

    at: float
    fields: dict[str, Any]

    @property
    def event(self) -> str:
        return str(self.fields.get("EVENT", ""))

    @property
    def text(self) -> str:
        message = self.fields.get("MESSAGE", "")
        return bytes(message).decode(errors="replace") if isinstance(message, list) else str(message)

    def __getattr__(self, name: str) -> Any:
        """`line.step` is its field STEP, as text."""
        try:
            return self.fields[name.upper()]
        except KeyError:
            raise AttributeError(f"the journal line {self.text!r} has no field {name.upper()}") from None


class Journal:
    """Follows the journal in `folder` until `close()`."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[Line] = []
        self._changed = threading.Condition()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        """journalctl sees no folder that comes after it: it is started when journald's first file is there."""
        while not any(self._folder.glob("*/system.journal")):
            if self._closed.wait(0.02):
                return
        cursor: list[str] = []
        while not self._closed.is_set():  # it gives up on a file that journald has just begun
            self._process = subprocess.Popen(
                [
                    *("journalctl", "--directory", str(self._folder), "--follow", "--lines=all"),
                    *("--output=json", "--all", *cursor),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"LC_ALL": "C"},
            )
            assert self._process.stdout is not None
            for raw in self._process.stdout:
                fields = json.loads(raw)
                cursor = [f"--after-cursor={fields['__CURSOR']}"]
                line = Line(int(fields["__MONOTONIC_TIMESTAMP"]) / 1e6, fields)
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()
            self._process.wait(10.0)
            self._closed.wait(0.05)

    def find(self, event: str, *, since: float = 0.0, where: Callable[[Line], bool] = lambda _: True) -> list[Line]:
        with self._changed:
            return [line for line in self.lines if line.event == event and line.at >= since and where(line)]

    def wait(
        self, *events: str, timeout: float, since: float = 0.0, where: Callable[[Line], bool] = lambda _: True
    ) -> Line:
        """The first line of one of `events`, written after `since`, that fits `where`. Raises VmError after `timeout`
        seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines:
                    if line.event in events and line.at >= since and where(line):
                        return line
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() > deadline:
                    raise VmError(f"no {' or '.join(events)} within {timeout:.0f} s\n{self.tail()}")

    def tail(self, count: int = 25) -> str:
        """The last lines, as a person wants them."""
        shown = []
        for line in self.lines[-count:]:
            extra = " ".join(
                f"{k}={v}" for k, v in line.fields.items() if not k.startswith(("_", "SYSLOG", "CODE", "PRIORITY"))
            )
            shown.append(f"  {line.at:.3f} {line.fields.get('SYSLOG_IDENTIFIER', '?')}: {extra}"[:400])
        return "\n".join(shown)

    def close(self) -> None:
        self._closed.set()
        time.sleep(0.05)  # what was written last is on its way
        if self._process:
            self._process.terminate()
            self._process.wait(10.0)
        self._thread.join(10.0)
