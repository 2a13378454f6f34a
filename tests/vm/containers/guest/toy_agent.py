"""`spot-agent` as it is, with the toy for a trainer (tests/promises/toy.py): PyTorch, and what it trains is exact."""

from __future__ import annotations

import sys
from pathlib import Path

import agent.main


def _toy(_run: object, run_file: Path) -> list[str]:
    return [sys.executable, "-m", "tests.promises.toy", str(run_file)]


if __name__ == "__main__":
    vars(agent.main)["trainer_command"] = _toy
    agent.main.main()
