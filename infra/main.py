"""The app that `cdktf synth|diff|deploy|destroy` runs: `python -m infra.main`. SPOT_RUN names the run file.

It only instantiates. Plain Terraform or OpenTofu can take it from here: each stack is a folder in cdktf.out/stacks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.config import RunFileError, load_run
from infra.deployment import Deployment, NotDeployable

DEFAULT_RUN = "workloads/llm/production.yaml"


def synthesize(deployment: Deployment, *, out: Path) -> None:
    """Write all stacks of one run file below `out`."""
    # Loading the bindings takes seconds: a mistake in the run file is told before.
    import infra.node  # noqa: F401, PLC0415, I001, before the bindings: it chooses their Node.js
    from cdktn import App  # noqa: PLC0415

    app = App(outdir=str(out))
    app.synth()


def main() -> None:
    run_file = Path(os.environ.get("SPOT_RUN", DEFAULT_RUN))
    try:
        deployment = Deployment.of(load_run(run_file))
    except (RunFileError, NotDeployable) as error:
        sys.exit(str(error))
    synthesize(deployment, out=Path(os.environ.get("CDKTF_OUTDIR", "cdktf.out")))


if __name__ == "__main__":
    main()
