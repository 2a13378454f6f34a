"""`spot-agent` as it is, with the toy for a trainer (tests/kernel/toy.py): PyTorch, and bit for bit what it should be."""

from __future__ import annotations

import sys

import agent.main

if __name__ == "__main__":
    agent.main.trainer_command = lambda _run, run_file: [sys.executable, "-m", "tests.kernel.toy", str(run_file)]
    agent.main.main()
