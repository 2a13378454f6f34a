"""`python -m tests.promises.agent_with RUN.yaml COMMAND...`: the real agent around a test's own trainer."""

# ruff: noqa: E402 - a SIGTERM counts from the first moment, as in agent/start.py

from __future__ import annotations

from agent.start import hear_early

hear_early()

import os
import sys
from pathlib import Path

from agent.config import load_run
from agent.main import run_to_the_end, supervise
from agent.telemetry import journal

if __name__ == "__main__":
    run_file, *command = sys.argv[1:]
    state_dir = os.environ["SPOT_STATE_DIR"]
    run = load_run(Path(run_file))
    journal.configure("json", run_id=run.run_id)
    run_to_the_end(supervise(run, Path(run_file), state_dir=Path(state_dir), health_port=0, command=command))
