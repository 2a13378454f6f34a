"""What Compute Engine can give a run: the GPUs of a machine, and what is refused of a run file for lack of them.

    run = load_run(Path("run.yaml"))        # as agent.config's, and what no VM could be is refused too

A VM reads its run file without this: it is what it was asked to be.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from agent.config import Accelerators, Machine, RunConfig
from agent.config import load_run as load_any_run
from agent.config.refusal import Refusal
from agent.config.sections import ON_THEIR_OWN
from infra.stacks.machine_types import (
    BUILT_IN_GPUS,
    BUILT_IN_LOCAL_SSDS,
    FAMILIES_WITH_GPUS,
    N1_GPUS,
    can_add_local_ssds,
    is_arm,
    local_ssds_to_add,
    types_with,
    unknown,
)


def load_run(path: Path, *, also: Callable[[RunConfig], Iterator[Refusal]] | None = None) -> RunConfig:
    """As `agent.config.load_run`. Raises RunFileError also where Compute Engine can't give what is asked for."""
    return load_any_run(path, also=lambda run: chain(refused(run), also(run) if also else ()))


def gpus_of(machine: Machine, machine_type: str | None = None) -> Accelerators | None:
    """The GPUs of one VM: those asked for, else those that the type comes with; None without a GPU.

    `machine_type`: one of its alternatives, instead of its own.
    """
    kind = machine_type or machine.type
    if machine.accelerators is not None or kind not in BUILT_IN_GPUS:
        return machine.accelerators if kind.startswith("n1-") or kind == machine.type else None
    name, count = BUILT_IN_GPUS[kind]
    return Accelerators(type=name, count=count)


def refused(run: RunConfig) -> Iterator[Refusal]:
    """What no VM of the run, of its stages or of its experiments could be."""
    of_the_run = list(_refused_run(run))
    yield from of_the_run
    told: set[tuple[Any, ...]] = {refusal.where for refusal in of_the_run}
    if run.ablations is not None:
        for point, experiment in zip(run.ablations.points(), run.experiments(), strict=True):
            for refusal in _refused_run(experiment):
                at = next((key for key in point.values if key.partition(".")[0] == refusal.where[0]), None)
                where = ("ablations", "grid", *(() if at is None else (at, point.places[at])))
                if refusal.where in told or (where, refusal.where) in told:  # once, not for each combination
                    continue
                told.add((where, refusal.where))
                path = ".".join(str(key) for key in refusal.where)
                together = ", ".join(f"{key}: {value}" for key, value in point.values.items())
                yield Refusal(where, f"with {together}, {path}: {refusal.reason}", refusal.fix)


def _refused_run(run: RunConfig) -> Iterator[Refusal]:
    mistaken = False
    for where, reason, fix in _refused_machine(run.machine):
        mistaken = True
        yield Refusal(("machine", *where), reason, fix)
    for place, stage in enumerate(run.stages):
        if stage.machine is not None:
            for where, reason, fix in _refused_machine(run.machine_for(stage)):
                yield Refusal(("stages", place, "machine", *where), reason, fix)
    if mistaken:  # how many GPUs it will have is not known then
        return
    gpus = gpus_of(run.machine)
    ranks = (gpus.count if gpus else 1) * run.machine.vms
    together = run.training.micro_batch * ranks
    if run.workload.kind not in ON_THEIR_OWN and ranks > 1 and run.training.global_batch % together:
        yield Refusal(
            ("training", "global_batch"),
            f"{run.training.global_batch} is not a multiple of {together}: "
            f"{ranks} ranks with a micro_batch of {run.training.micro_batch}",
            f"write global_batch: {-(-run.training.global_batch // together) * together}, or another micro_batch",
        )


def _refused_machine(machine: Machine) -> Iterator[Refusal]:
    yield from _refused_gpus(machine)
    yield from _refused_alternatives(machine)
    yield from _refused_local_ssd(machine)


def _refused_alternatives(machine: Machine) -> Iterator[Refusal]:
    mine = gpus_of(machine)
    for place, other in enumerate(machine.alternatives):
        theirs = gpus_of(machine, other)
        if other == machine.type or other in machine.alternatives[:place]:
            yield Refusal(("alternatives", place), f"{other} is listed already", "leave it out")
        elif said := unknown(other):
            yield Refusal(("alternatives", place), *said)
        elif is_arm(other) != is_arm(machine.type):
            yield Refusal(
                ("alternatives", place),
                f"{other} and {machine.type} have not the same architecture: no image boots on both",
                "leave it out",
            )
        elif other.startswith(FAMILIES_WITH_GPUS) and other not in BUILT_IN_GPUS:
            close = difflib.get_close_matches(other, BUILT_IN_GPUS, n=1, cutoff=0)[0]
            yield Refusal(("alternatives", place), f"there is no machine type {other}", f"did you mean {close}?")
        elif theirs != mine:
            same = types_with(mine.type, mine.count).split(" or ") if mine else []
            fitting = " or ".join(name for name in same if name not in ("", machine.type))
            yield Refusal(
                ("alternatives", place),
                f"{other} has {_counted(theirs)}, {machine.type} has {_counted(mine)}: on other GPUs the run would "
                "not go on bit for bit",
                f"write {fitting}" if fitting else "leave it out",
            )
        elif machine.local_ssd and not can_add_local_ssds(other, machine.local_ssd):
            yield Refusal(
                ("alternatives", place),
                f"{other} can't be given {machine.local_ssd} local SSDs, as {machine.type} is",
                "leave it out, or write another machine.local_ssd",
            )


def _refused_local_ssd(machine: Machine) -> Iterator[Refusal]:
    if not machine.local_ssd or can_add_local_ssds(machine.type, machine.local_ssd):
        return
    choices, own = local_ssds_to_add(machine.type), BUILT_IN_LOCAL_SSDS.get(machine.type)
    if own is not None:
        yield Refusal(("local_ssd",), f"{machine.type} comes with its {own} local SSDs", "leave it out")
    elif not choices:
        yield Refusal(
            ("local_ssd",), f"no local SSDs can be added to {machine.type}", "write 0, or another machine.type"
        )
    else:
        yield Refusal(
            ("local_ssd",),
            f"{machine.type} can't have {machine.local_ssd} local SSDs",
            f"write 0 or {', '.join(map(str, choices))}",
        )


def _refused_gpus(machine: Machine) -> Iterator[Refusal]:
    asked = machine.accelerators
    if said := unknown(machine.type):
        yield Refusal(("type",), *said)
    elif machine.type in BUILT_IN_GPUS:
        kind, count = BUILT_IN_GPUS[machine.type]
        if asked is None:
            return
        if asked.type != kind:
            fitting = types_with(asked.type, asked.count)
            yield Refusal(
                ("accelerators", "type"),
                f"{machine.type} comes with {kind}, not with {asked.type}",
                f"leave out accelerators, or write machine.type: {fitting}" if fitting else "leave out accelerators",
            )
        elif asked.count != count:
            yield Refusal(
                ("accelerators", "count"),
                f"{machine.type} has {count} GPUs, not {asked.count}",
                f"leave out accelerators, or write machine.type: {types_with(asked.type, asked.count) or machine.type}",
            )
    elif machine.type.startswith(FAMILIES_WITH_GPUS):
        close = difflib.get_close_matches(machine.type, BUILT_IN_GPUS, n=1, cutoff=0)[0]
        yield Refusal(("type",), f"there is no machine type {machine.type}", f"did you mean {close}?")
    elif asked is not None and not machine.type.startswith("n1-"):
        fitting = types_with(asked.type, asked.count)
        yield Refusal(
            ("accelerators",),
            f"GPUs can't be attached to {machine.type}",
            f"write machine.type: {fitting}" if fitting else "write an n1- machine type, or leave out accelerators",
        )
    elif asked is not None and asked.type not in N1_GPUS:
        fitting = types_with(asked.type, asked.count)
        yield Refusal(
            ("accelerators", "type"),
            f"{asked.type} can't be attached to an N1 machine",
            f"write machine.type: {fitting}" if fitting else f"write one of {', '.join(N1_GPUS)}",
        )
    elif asked is not None and asked.count not in N1_GPUS[asked.type]:
        yield Refusal(
            ("accelerators", "count"),
            f"a VM can't have {asked.count} GPUs of type {asked.type}",
            f"write one of {', '.join(map(str, N1_GPUS[asked.type]))}",
        )


def _counted(gpus: Accelerators | None) -> str:
    return f"{gpus.count} x {gpus.type}" if gpus else "no GPU"
