"""`python -m infra.proof iam RUN.yaml`: who may do what, by identity, action and prefix."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from agent.config import RunFileError
from infra.stacks.deployment import Deployment, NotDeployable
from infra.stacks.machines import load_run


def print_iam(run_files: list[str]) -> None:
    """Synthesize each run file and print its tables. Exits with 2 where a run file can't be used."""
    # The bindings take seconds to load: a mistake on the command line is told before.
    from infra.main import synthesize  # noqa: PLC0415
    from infra.proof.iam import draw_iam, read_policy  # noqa: PLC0415

    if not run_files:
        sys.exit("usage: python -m infra.proof iam RUN.yaml...")
    try:
        for run_file in run_files:
            deployment = Deployment.of(load_run(Path(run_file)))
            with tempfile.TemporaryDirectory() as out:
                packed = f"{'0' * 64}.tar.gz"
                code = packed if deployment.run.workload.code else None
                synthesize(deployment, out=Path(out), bundle=packed, code=code)
                policy = read_policy(Path(out), project=deployment.project)
            for run in deployment.run.experiments() or (deployment.run,):
                Console().print(draw_iam(policy, Deployment.of(run)))
    except (RunFileError, NotDeployable) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
