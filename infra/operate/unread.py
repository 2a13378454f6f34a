"""What a run file can say and nothing would do: refused before it costs a VM, by `spot check`, `run` and `deploy`.

The sections are there for trainers and a planner to come, and the stacks build for them already. As soon as somebody
reads a key, its refusal goes from here.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.config import RunConfig
from agent.config.refusal import Refusal
from agent.config.sections import ON_THEIR_OWN
from infra.stacks.machines import gpus_of

TRAINERS = ("llm",)
"""Kinds of this project's own that there is a program for."""


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
    if theirs:
        return
    if run.tracking is not None and run.tracking.wandb is not None:
        yield Refusal(
            ("tracking", "wandb"),
            f"the {kind} trainer does not log there: its metrics are in the bucket",
            "leave it out, or write kind: script with a program that does",
        )
    if run.stages:
        yield Refusal(
            ("stages",),
            f"the {kind} trainer has no stages",
            "leave them out; learning_rate and max_steps are in training",
        )
    if run.machine.vms > 1:
        yield Refusal(("machine", "vms"), f"the {kind} trainer runs on one VM", "write machine.vms: 1")
    elif (gpus := gpus_of(run.machine)) is not None and gpus.count > 1:
        yield Refusal(
            ("machine", "type"),
            f"the {kind} trainer uses one GPU, and {run.machine.type} has {gpus.count}, which are all paid for",
            "write a machine type with one GPU, or kind: script with a program that uses them",
        )
