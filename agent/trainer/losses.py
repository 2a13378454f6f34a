"""Losses: the record of an interruption, and what it cost, as far as that is known."""

from __future__ import annotations

from collections.abc import Callable

from agent.config.causes import FAILURES, Cause
from agent.telemetry.ledger import Incident
from agent.trainer.host import Host
from agent.trainer.progress import Progress


def open_incident(
    host: Host, attempt: int, kind: Cause, source: str, *, detail: str = "", at: float | None = None
) -> Incident:
    """A record that begins now, or began at `at`."""
    host.health.count_incident(kind)
    ledger = host.ledger
    began = host.clock() if at is None else at
    return Incident(
        ledger.run_id, attempt, ledger.vm, kind, source, began, detail=detail, claimant=ledger.claimant
    )  # fmt: skip


def count_loss(
    host: Host, progress: Progress, incident: Incident, *, until: float, step_of: Callable[[int], int | None] | None
) -> None:
    """What was trained and is not safe: in steps where the trainer counts them, and in seconds of its work until
    `until`. `step_of`: a program's own step in a save of that number; how far it has come since only it knows."""
    saver = host.saver
    outlives = incident.kind in FAILURES  # what is staged outlives its trainer, not its VM
    safe = max(saver.staged_step, saver.committed_step) if outlives else saver.committed_step
    known = saver.line_known
    if step_of:
        incident.step_committed = step_of(safe) if known else None
    else:
        incident.step_committed = safe if known else None
        reached = incident.step_reached = progress.step
        if known and reached is not None:
            incident.step_committed = min(safe, reached)
    if not known:
        return
    at = progress.passed(safe)
    if at is not None:
        incident.seconds_lost = round(max(0.0, until - at), 3)
