"""Where tables are drawn: as wide as the terminal; in a pipe as wide as they are, since nothing there wraps a line."""

from __future__ import annotations

from rich.console import Console

_WIDE = 1000


def console() -> Console:
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDE)
