"""Units that would still be stopping when the power of a Spot VM is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from agent.config import parse_seconds
from agent.config.machine import SPOT_WINDOW
from infra.stacks.fleet.known_bad import KnownBad

LONGEST_STOP_S = SPOT_WINDOW
"""Nothing is to be killed after the power is gone; what has a window ends it by itself, with a reserve (agent/run)."""

_STOP = re.compile(r"^TimeoutStopSec=(.*)$", re.MULTILINE)


def find_slow_stops(folder: Path) -> Iterator[KnownBad]:
    """Service units below `folder` that may take longer to stop than a Spot VM has, or that don't say."""
    for unit in sorted(folder.rglob("*.service")):
        said = _STOP.findall(unit.read_text(encoding="utf-8"))
        if not said:
            reason = f"it may take systemd's default of 90 s to stop; a Spot VM has {SPOT_WINDOW:g} s"
        elif (seconds := _seconds(said[-1])) > LONGEST_STOP_S:
            reason = f"it may take {seconds:g} s to stop (TimeoutStopSec); a Spot VM has {SPOT_WINDOW:g} s"
        else:
            continue
        yield KnownBad(unit.name, reason, f"write TimeoutStopSec={LONGEST_STOP_S:g}s or less")


def _seconds(text: str) -> float:
    text = text.strip()
    if text in ("infinity", "0"):
        return float("inf")
    return float(text) if re.fullmatch(r"[0-9.]+", text) else parse_seconds(text)
