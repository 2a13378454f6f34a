"""What a run file can say and nothing would do: refused before it costs a VM, by `spot check`, `run` and `deploy`.

The sections are there for trainers and a planner to come, and the stacks build for them already. As soon as somebody
reads a key, its refusal goes from here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import PurePosixPath

from agent.config import RunConfig
from agent.config.program import PYTHONS, search_path
from agent.config.refusal import Refusal
from agent.config.sections import ON_THEIR_OWN
from infra.packing import CodeError, code_of, holds_secret, refused
from infra.stacks.machines import gpus_of

TRAINERS = ("llm", "vlm", "arr-coc")
"""Kinds of this project's own that there is a program for."""
STAGED = ("vlm", "arr-coc")
"""Those that train in stages."""


def unread(run: RunConfig) -> Iterator[Refusal]:
    """The keys of `run` that would be passed over."""
    kind = run.workload.kind
    theirs = kind in ON_THEIR_OWN
    if not theirs and kind not in TRAINERS:
        yield Refusal(
            ("workload", "kind"),
            f"there is no trainer for {kind} yet",
            f"write kind: {' or '.join(TRAINERS)}, or kind: script with a program of your own",
        )
        return
    if run.price_cap is not None:
        yield Refusal(
            ("price_cap",), "nothing looks at prices yet, so that no cap would hold", "leave it out; see cloud.budget"
        )
    if run.machine.vms > 1:
        yield Refusal(
            ("machine", "vms"),
            "a run trains on one VM: several would take it from each other",
            "write machine.vms: 1",
        )
    if theirs:
        yield from _unstartable(run)
        return
    if run.stages and kind not in STAGED:
        yield Refusal(
            ("stages",),
            f"the {kind} trainer has no stages",
            "leave them out; learning_rate and max_steps are in training",
        )
    if run.machine.vms == 1 and (gpus := gpus_of(run.machine)) is not None and gpus.count > 1:
        yield Refusal(
            ("machine", "type"),
            f"the {kind} trainer uses one GPU, and {run.machine.type} has {gpus.count}, which are all paid for",
            "write a machine type with one GPU, or kind: script with a program that uses them",
        )


def _unstartable(run: RunConfig) -> Iterator[Refusal]:
    """What of a program of the user's own is not there, or may not travel."""
    workload = run.workload
    try:
        code = code_of(run)
    except CodeError as error:
        reason, _, fix = str(error).partition("\n    fix: ")
        yield Refusal(("workload", "code"), reason, fix)
        return
    if code is None:
        return
    yield from refused(code)

    def stays(name: str) -> str:
        there = (code.folder / name).exists()
        return f"{name} stays behind: it is excluded from the code" if there else f"there is no {name} in {code.folder}"

    for key in ("requirements", "setup"):
        name = getattr(workload, key)
        if name is not None and name not in code.files:
            yield Refusal(("workload", key), stays(name), "correct its name, or stop excluding it in .gitignore")
    for name in workload.no_secret:
        if name not in code.files:
            fix = "correct its name, or leave it out of no_secret"
            yield Refusal(("workload", "no_secret"), stays(name), fix)
        elif not holds_secret(code.folder / name):
            yield Refusal(("workload", "no_secret"), f"{name} is not taken for a secret", "leave it out of no_secret")
    lock = PurePosixPath(workload.requirements or "")
    if lock.name == "uv.lock" and str(lock.with_name("pyproject.toml")) not in code.files:
        missing = stays(str(lock.with_name("pyproject.toml")))
        yield Refusal(("workload", "requirements"), missing, "uv.lock is a project's: put its pyproject.toml beside it")
    program, *arguments = workload.command
    relative = "/" in program and not program.startswith("/")
    scripts = [program] if relative else [word for word in arguments if word.endswith((".py", ".sh"))][:1]
    for script in scripts:
        name = str(PurePosixPath(script))
        if script.startswith("/") or ".." in PurePosixPath(script).parts:
            continue  # on the VM's own disk, then
        if name not in code.files:
            yield Refusal(("workload", "command"), stays(name), "correct its name, or stop excluding it in .gitignore")
        elif script == program and not os.access(code.folder / name, os.X_OK):
            fix = f"chmod +x {name}, or write the program that reads it in front"
            yield Refusal(("workload", "command"), f"{name} may not be executed", fix)
    # What a VM has on its disk is not known here; what this machine has, is.
    unknown = run.cloud is not None or workload.brings_environment or "PATH" in workload.env or "/" in program
    if not unknown and program not in PYTHONS and not shutil.which(program, path=search_path(run)["PATH"]):
        yield Refusal(("workload", "command"), f"there is no program {program} here", "correct its name, or install it")
