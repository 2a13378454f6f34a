"""Spoilt: which checkpoints may be of after a spike, and are nobody's to go on from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def is_spoilt(attempt: int, step: int, spikes: Collection[Mapping[str, Any]]) -> bool:
    """Whether it is not known that the step after the checkpoint was as it should be. `spikes`: as the line has them
    (`agent.checkpoint.rollback.Noted`)."""
    return any(attempt <= each["attempt"] and (each["good"] is None or step > each["good"]) for each in spikes)
