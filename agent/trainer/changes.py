"""Changes: what the run file says other than when the trainer that runs was started.

An agent that is restarted, or replaced by a newer one, goes on with its trainer and reads the run file again. What the
agent does itself it does by the new file at once; what the trainer was told at its start holds until its next start.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from agent.config import RunConfig

log = structlog.get_logger()

_AT_ITS_START = ("workload", "model", "data", "training", "stages", "tracking", "checkpoint.milestone_every")
_CADENCE = "checkpoint.every"
"""In steps it is the trainer that counts, else the agent."""


def remember(run: RunConfig, record_file: Path) -> None:
    """Keep what the trainer is started with, beside its record."""
    with contextlib.suppress(OSError):  # a full disk: then no change is told, and the trainer runs all the same
        _beside(record_file).write_text(run.model_dump_json())


def tell_changes(run: RunConfig, record_file: Path) -> None:
    """Say which keys are others now, and since when they hold."""
    try:
        was = json.loads(_beside(record_file).read_text())
    except (OSError, ValueError):
        return
    taken, later = changes(was, run.model_dump(mode="json"))
    if taken or later:
        log.warning("run_file_changed", taken=taken, later=later)


def changes(was: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The keys that the agent takes at once, and those that the trainer takes at its next start."""
    taken: list[str] = []
    later: list[str] = []
    for key, before, after in _differences(was, now, ""):
        counted = key == _CADENCE and any(str(value).endswith("steps") for value in (before, after))
        at_start = any(key == part or key.startswith(f"{part}.") for part in _AT_ITS_START)
        (later if counted or at_start else taken).append(key)
    return taken, later


def _differences(was: Any, now: Any, above: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _differences(was.get(key), now.get(key), f"{above}.{key}".lstrip("."))
    elif was != now:
        yield above, was, now


def _beside(record_file: Path) -> Path:
    return record_file.with_name("trainer-run.json")
