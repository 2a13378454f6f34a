"""`python -m infra.bench.agent RUN.yaml COMMAND...`: the real agent, around the benchmark's own trainer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.config import load_run
from agent.main import run_to_the_end, supervise
from agent.telemetry import journal


def main() -> None:
    """Supervise COMMAND as the run's trainer."""
    run_file, *command = sys.argv[1:]
    run = load_run(Path(run_file))
    journal.configure("json", run_id=run.run_id)
    state_dir = Path(os.environ["SPOT_STATE_DIR"])
    run_to_the_end(supervise(run, Path(run_file), state_dir=state_dir, health_port=0, command=command))


if __name__ == "__main__":
    main()
