"""Formats: what we write has a number. What a newer version wrote is refused by name, never misread."""

from __future__ import annotations

from typing import Any

MANIFEST_FORMAT = 2
LINE_FORMAT = 2
"""Of an entry of the line. 2: of a run that went back from a spike, and from the first border between two machines'
stages on; all others are written as 1."""
LEDGER_FORMAT = 1
"""Of a record of an incident or a return."""
HOURS_FORMAT = 1
"""Of a sign of a VM's life."""
TRAINER_FORMAT = 1
"""Of what an agent notes on its VM of the trainer that it started."""


class NewerFormatError(Exception):
    """Written by a newer version of this program: to go on without it would fork the run, so nobody may."""


def refuse_newer(values: Any, *, reads: int, where: str) -> None:
    """Raises NewerFormatError where the `format` of `values`, a JSON object, is past `reads`; without one it is 1."""
    found = values.get("format", 1) if isinstance(values, dict) else 1
    if isinstance(found, int) and found > reads:
        raise NewerFormatError(
            f"{where} was written by a newer version of spot-training (format {found}; this one reads up to {reads}): "
            "upgrade spot-training on this VM"
        )
