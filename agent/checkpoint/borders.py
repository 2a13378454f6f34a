"""Borders: where a run stands, seen from one machine's stages, by its line alone."""

from __future__ import annotations

from typing import Literal

from agent.checkpoint.line import LineEntry
from agent.config.legs import Leg

Place = Literal["ahead", "here", "behind"]
"""The run has not come to these stages yet; is in them; is through with them."""


class AtBorder(Exception):
    """The run stands at a border, or behind it: it is not this machine's to train."""


def place_of(newest: LineEntry | None, leg: Leg | None) -> Place:
    """Where `leg` is, of a run whose line's newest entry that is.

    Whoever has claimed last is of the stages that the run is in. A machine's stages may fall back behind their own
    start, where the border's checkpoint is bad, and are still its own.
    """
    if leg is None:
        return "here"
    step, until = (newest.step, newest.until) if newest else (0, 0)
    if until > leg.end or (not leg.last and step >= leg.end):
        return "behind"
    return "ahead" if until < leg.end and step < leg.start else "here"


def refuse_elsewhere(leg: Leg | None, newest: LineEntry | None) -> None:
    """Raises AtBorder where the run is not in `leg`."""
    if (place := place_of(newest, leg)) != "here":
        raise AtBorder(f"these stages are {place} of the run")
