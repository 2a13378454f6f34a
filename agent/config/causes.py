"""Causes: every reason for which a trainer, a VM's work or a run ends, in one list that all speak of.

A notice has one, so has the end of a trainer, so have the record of it and the end of the agent's work on this VM.
"""

from __future__ import annotations

from typing import Literal

Cause = Literal[
    "complete",  # the result is in the bucket
    "stage_complete",  # the stages of this machine: another one's go on
    "stage_not_begun",  # the stages of this machine: those before them go on
    "preempted",
    "maintenance",
    "operator_stop",  # SIGTERM, the power button, a notice that is no preemption
    "drill",
    "crash",
    "out_of_memory",
    "hang",
    "spike",  # a metric went wild: the run goes back to the checkpoint before
    "superseded",  # another VM trains this run
    "vm_unfit",  # this VM can't: another one may
    "max_cost",  # its VMs have cost what the run file allows
    "gave_up",  # this run can't, on any VM
]

Failure = Literal["crash", "out_of_memory", "hang"]
FAILURES: tuple[Failure, ...] = ("crash", "out_of_memory", "hang")
"""The trainer's own ends: tried again, in bounds (`agent.trainer.restarts`)."""

ENDS_OF_GROUP: tuple[Cause, ...] = ("complete", "stage_complete", "stage_not_begun", "max_cost", "gave_up")
"""After these no VM of this machine is needed any more: the group goes to zero."""
