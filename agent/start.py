"""Start: what `spot-agent` runs. A SIGTERM counts from the first moment, while all the rest is still being imported."""

from __future__ import annotations

import signal
import time


class _Early:
    """Remembers when SIGTERM came; `agent.notices.signals` posts it, and takes over."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    def __call__(self, *_: object) -> None:
        self.heard.append(time.monotonic())


def hear_early() -> None:
    """From here on a SIGTERM is no end, and not forgotten."""
    signal.signal(signal.SIGTERM, _Early())


def main() -> None:
    hear_early()
    from agent import main as entry  # noqa: PLC0415 - takes half a second, and by default a SIGTERM in it is the end

    entry.main()


if __name__ == "__main__":
    main()
