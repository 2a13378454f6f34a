"""Deploying, step by step, each with its own end; and the way back.

What the operator is asked is a parameter (`ask`), so that `--yes`, a test and a person come to the same place.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.operate import state_bucket
from infra.operate.api import CloudApi
from infra.operate.consequences import consequences
from infra.operate.doctor.buckets import read_bucket
from infra.operate.doctor.examination import ESSENTIAL, examine
from infra.operate.doctor.finding import Finding, note
from infra.operate.pools import read_pool, undelete_pool
from infra.operate.programs import ProgramError, hand_over
from infra.operate.stacks import Refused, Stack, Terraform, read_stacks
from infra.packing import CodeError, code_of
from infra.stacks.deployment import PROVIDER_ID, Deployment

FOUNDATION = "foundation"
TRUST = "continuous-integration"
PROJECT_WIDE = (FOUNDATION, TRUST)
"""Stacks that are not one run's."""
BUCKET = "google_storage_bucket.bucket"
POOL, POOL_PROVIDER = "google_iam_workload_identity_pool.pool", "google_iam_workload_identity_pool_provider.provider"
DELETE_BUCKET = "SPOT_DELETE_BUCKET"
"""For the app: the name of the bucket that its foundation may destroy."""

GRANTS_SPREAD_S = 600.0
"""How long a refusal of Google's may be one of a grant, or of an API, that was given minutes ago."""
_AGAIN_S = 60.0
_PROOF_S = 120.0
_CDKTF_S = 3 * 3600.0


class Declined(Exception):
    """The operator said no; nothing after that was done."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One run file, from the operator's machine to the cloud."""

    deployment: Deployment
    run_file: Path
    out: Path
    say: Callable[[str], None]
    ask: Callable[[str], bool]
    change_shared: bool = False
    """Whether a deployment may take away, or replace, what other runs use too."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def examine(self) -> list[Finding]:
        """What would make a deployment fail half way. It goes by the application default credentials, and not by what
        gcloud is logged in as: that is for other commands."""
        found = examine(self.deployment, cloud_checks=ESSENTIAL)
        return [_only_for_others(one) if one.what in ("gcloud", "login") else one for one in found]

    def need_state_bucket(self, api: CloudApi) -> None:
        """Raises Declined, ApiError."""
        if not state_bucket.is_missing(api, self.deployment):
            return
        name = self.deployment.state_bucket
        self._insist(f"gs://{name}, for Terraform's state, is not there. Make it?")
        state_bucket.make(api, self.deployment)
        self.say(f"made gs://{name}: versions kept, no public access")

    def synthesize(self, *, delete_bucket: bool = False) -> list[Stack]:
        """Write and check the stacks. Raises ProgramError where the checks find a mistake."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ProgramError(f"{self.out} can't be written: {why}\n    fix: name another folder with --out") from None
        # A process of its own: it is the one that `cdktf synth` runs.
        try:
            code = code_of(self.deployment.run)
        except CodeError as error:
            raise ProgramError(str(error)) from None
        if code:
            self.say(code.told())
        env = {"SPOT_RUN": str(self.run_file), "CDKTF_OUTDIR": str(self.out)}
        env |= {DELETE_BUCKET: self.deployment.bucket} if delete_bucket else {}
        self._python("infra.main", env=env)
        self._python("infra.proof", str(self.out), env={})
        stacks = read_stacks(self.out)
        self.say(f"stacks of {self.deployment.run.run_id} in {self.out}: {', '.join(stack.name for stack in stacks)}")
        return stacks

    def apply(self, terraform: Terraform, stacks: list[Stack], *, api: CloudApi) -> None:
        """Plan, ask, apply, one stack after the other. Raises Declined, ProgramError."""
        for stack in stacks:
            self.say(f"\n== {stack.name}")
            terraform.init(stack)
            if stack.name == FOUNDATION:
                self._adopt_bucket(terraform, stack, api)
            if stack.name == TRUST:
                self._adopt_pool(terraform, stack, api)
            self._do(terraform, stack, f"Apply {stack.name}?")

    def diff(self, terraform: Terraform, stacks: list[Stack]) -> bool:
        """Show what a deployment would change; False: nothing."""
        changes = []
        for stack in stacks:
            self.say(f"\n== {stack.name}")
            terraform.init(stack)
            changes.append(terraform.plan(stack))
            self._say_what_it_does(terraform, stack)
            terraform.drop_plan(stack)
        return any(changes)

    def destroy(self, terraform: Terraform, stacks: list[Stack], *, foundation: bool, delete_bucket: bool) -> None:
        """Take away the run's own stacks; with `foundation` also what runs share; the bucket only with its own word."""
        bucket = f"gs://{self.deployment.bucket}"
        doomed = [stack for stack in reversed(stacks) if foundation or stack.name not in PROJECT_WIDE]
        kept = [stack.name for stack in stacks if stack not in doomed]
        self.say(
            f"{bucket} is DELETED, with every run's checkpoints and results in it"
            if delete_bucket
            else f"{bucket} stays, with all checkpoints and results; delete it with --foundation --delete-bucket"
        )
        if kept:
            self.say(f"{', '.join(kept)} stay: other runs use them; take them away with --foundation")
        for stack in doomed:
            self.say(f"\n== {stack.name}")
            terraform.init(stack)
            if stack.name == FOUNDATION and not delete_bucket and BUCKET in terraform.addresses(stack):
                self._insist(f"{bucket} stays, and Terraform forgets it (a later deployment finds it again). Go on?")
                terraform.forget(stack, [BUCKET])
            elif stack.name == FOUNDATION and delete_bucket and BUCKET in terraform.addresses(stack):
                # The provider empties a bucket only where its state says that it may: what the stack says is too late.
                self._do(terraform, stack, f"Let {bucket} be deleted with all that is in it?", target=BUCKET)
            self._do(terraform, stack, f"Destroy {stack.name}?", destroy=True)

    def with_cdktf(self, program: str, action: str, stacks: list[Stack], *, yes: bool) -> None:
        """`cdktf deploy` or `destroy` in place of Terraform by hand; it asks by itself."""
        # The very stacks that were proven: it would write others, into a folder of its own.
        command = [program, action, *(stack.name for stack in stacks), f"--output={self.out}", "--skip-synth"]
        command += ["--auto-approve"] if yes else []
        status = hand_over(command, timeout=_CDKTF_S, env={"SPOT_RUN": str(self.run_file)})
        if status:
            raise ProgramError(f"{program} {action} ended with {status}; it says why above")

    def _adopt_bucket(self, terraform: Terraform, stack: Stack, api: CloudApi) -> None:
        """A bucket that is there, from before or from a foundation that was taken away, is used and not made anew."""
        name = self.deployment.bucket
        if read_bucket(api, name) is not None and BUCKET not in terraform.addresses(stack):
            self._insist(f"gs://{name} is there already. Let the foundation look after it?")
            terraform.adopt(stack, BUCKET, name)

    def _adopt_pool(self, terraform: Terraform, stack: Stack, api: CloudApi) -> None:
        """A pool that was taken away keeps its id for 30 days: it is given back, and used."""
        known = terraform.addresses(stack)
        path = self.deployment.identity_pool
        for address, place in ((POOL, path), (POOL_PROVIDER, f"{path}/providers/{PROVIDER_ID}")):
            there = read_pool(api, place)
            if there is None or address in known:
                continue
            if there.get("state") == "DELETED":
                self._insist(
                    f"{place} was deleted in the last 30 days, and its name is taken for as long. Give it back?"
                )
                undelete_pool(api, place)
            terraform.adopt(stack, address, place)

    def _do(
        self, terraform: Terraform, stack: Stack, question: str, *, destroy: bool = False, target: str | None = None
    ) -> None:
        """Plan, say what that does, ask once, apply; where Google refuses it, again while grants of a few minutes ago
        spread."""
        asked, end = False, self.clock() + GRANTS_SPREAD_S
        while True:
            try:
                if not terraform.plan(stack, destroy=destroy, target=target):
                    return
                if not asked:
                    self._say_what_it_does(terraform, stack)
                    if not destroy:
                        self._keep_what_is_shared(terraform, stack)
                    self._insist(question)
                    asked = True
                terraform.apply(stack)
                return
            except Refused as error:
                if self.clock() >= end:
                    raise
                left = math.ceil((end - self.clock()) / 60)
                self.say(
                    f"\n{error}\nA grant takes 2 to 7 minutes and more to spread: again in a minute, for {left} min"
                )
                self.sleep(_AGAIN_S)
            finally:
                terraform.drop_plan(stack)

    def _keep_what_is_shared(self, terraform: Terraform, stack: Stack) -> None:
        """A run file that leaves out what another has, such as its operators, would take it from them too. Raises
        ProgramError."""
        if self.change_shared or stack.name not in PROJECT_WIDE:
            return
        lost = [one["address"] for one in terraform.changes(stack) if "delete" in one["change"]["actions"]]
        if lost:
            raise ProgramError(
                f"{self.run_file.name} would take from the {stack.name} of gs://{self.deployment.bucket} what other "
                f"runs may use: {', '.join(lost)}\n    fix: write cloud and machine.region as in the run file that "
                "made it, or, where it is meant: spot deploy --change-shared"
            )

    def _say_what_it_does(self, terraform: Terraform, stack: Stack) -> None:
        for line in consequences(terraform.changes(stack)):
            self.say(f"  ! {line}")

    def _insist(self, question: str) -> None:
        if not self.ask(question):
            raise Declined("stopped; what was done before stays as it is")

    def _python(self, module: str, *arguments: str, env: dict[str, str]) -> None:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", module, *arguments],
                env=os.environ | env,
                capture_output=True,
                text=True,
                timeout=_PROOF_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{module} had no end after {_PROOF_S:g} s") from None
        if done.returncode:
            raise ProgramError(f"{module} refuses the stacks:\n{(done.stdout + done.stderr).strip()}")


def _only_for_others(finding: Finding) -> Finding:
    if finding.status != "problem":
        return finding
    told = f"{finding.told}; deploying does without, spot start, stop, ssh and logs do not"
    return note(finding.what, told, finding.fix)
