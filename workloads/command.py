"""The command line of our trainers: `python -m workloads.KIND.train RUN.yaml`."""

import sys
from collections.abc import Callable
from pathlib import Path

from spot_training import SessionError, StateError

from agent.config import RunConfig, RunFileError, load_run
from workloads.errors import DataError, ModelError, SettingsError


def run(train: Callable[[RunConfig], None], *, program: str) -> None:
    """Train the one run file that is named; what is refused ends `program` with its sentence and status 1."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {program} RUN.yaml")
    try:
        train(load_run(Path(sys.argv[1])))
    except (RunFileError, DataError, ModelError, SessionError, SettingsError, StateError) as error:
        sys.exit(f"error: {error}")
