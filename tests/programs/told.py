"""What most of the programs here share: where they save, the notice, and a word to the test that they are ready."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

SAVES = Path(os.environ["SAVES"])
_heard: list[int] = []


def hear(number: signal.Signals = signal.SIGUSR1) -> None:
    """The notice sets a flag, as programs do."""
    signal.signal(number, lambda number, _: _heard.append(number))


def told() -> bool:
    return bool(_heard)


def ready() -> None:
    Path(os.environ["READY"]).touch()


def train_until_told() -> None:
    """Trains on in small steps, and is ready."""
    hear()
    ready()
    while not told():
        time.sleep(0.02)


def train_for(seconds: float) -> None:
    time.sleep(seconds)


def write(path: str, text: str, *, pause: float = 0.0) -> None:
    """A file below SAVES, its second half after `pause` seconds."""
    at = SAVES / path
    at.parent.mkdir(parents=True, exist_ok=True)
    with at.open("w") as file:
        file.write(text)
        if pause:
            file.flush()
            time.sleep(pause)
            file.write(text)
